"""The examples' text: Shakespeare if `LR_GYM_DATA` has it, else `markov`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor

import lr_gym

WIDTH = 32  # characters per window


def read_arguments(
    description: str | None, arguments: list[str] | None
) -> tuple[int, float, bool, int]:
    """Return iterations, initial learning rate, whether to control, and seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument(
        "--learning-rate", type=float, default=0.1, help="default: ten times too high"
    )
    parser.add_argument("--no-controller", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    return args.iterations, args.learning_rate, not args.no_controller, args.seed


def load_windows() -> tuple[Tensor, Tensor, int]:
    """Return training and validation windows, (N, WIDTH + 1), and the vocab size."""
    folder = os.environ.get("LR_GYM_DATA")
    text = Path(folder).expanduser() / "tinyshakespeare.txt" if folder else None
    corpus = lr_gym.load_corpus("shakespeare" if text and text.is_file() else "markov")
    train, val = (
        torch.from_numpy(part.astype("int64")).unfold(0, WIDTH + 1, WIDTH)
        for part in (corpus.train, corpus.val)
    )
    return train, val[:128], corpus.vocab_size
