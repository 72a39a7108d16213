"""Hugging Face's Trainer, from a learning rate ten times too high.

    python examples/huggingface_trainer.py
    python examples/huggingface_trainer.py --no-controller

It trains a small, randomly initialized GPT-2. The callback sets the learning rate;
without it, the Trainer's linear decay does.
"""

from __future__ import annotations

import tempfile
from typing import Any

from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

from examples.text import WIDTH, load_windows, read_arguments
from lr_gym.controllers.integrations.huggingface import LRControllerCallback


def make_dataset(windows: Tensor) -> list[dict[str, Tensor]]:
    """Return a dataset for the Trainer; the model shifts the labels."""
    return [{"input_ids": window, "labels": window} for window in windows[:, :WIDTH]]


def main(arguments: list[str] | None = None) -> float:
    """Train; return the final validation loss."""
    iterations, learning_rate, controlled, seed = read_arguments(__doc__, arguments)
    train, val, vocab_size = load_windows()
    set_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=WIDTH,
        n_embd=64,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": iterations,
            "seed": seed,
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 128,
            "learning_rate": learning_rate,
            "save_strategy": "no",
            "logging_steps": 10,
            "report_to": [],
            "use_cpu": True,
        }
        trainer = Trainer(
            model=GPT2LMHeadModel(config),
            args=TrainingArguments(**settings),
            train_dataset=make_dataset(train),
            eval_dataset=make_dataset(val),
            callbacks=[LRControllerCallback()] if controlled else [],
        )
        trainer.train()
        final = float(trainer.evaluate()["eval_loss"])
    print(f"final val_loss {final:.4f}")
    return final


if __name__ == "__main__":
    main()
