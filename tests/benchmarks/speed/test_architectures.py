"""The comparison of architectures: its result file and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed.architectures import Args, main, table


def test_speeds_sizes_and_rates_of_every_architecture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "architectures.json"
    threads = torch.get_num_threads()
    main(
        Args(
            scale=("tiny",),
            sizes=(2,),
            repeats=1,
            learning_rates=(1e-3, 1e-2),
            seeds=1,
            max_iters=30,
            threads=threads,
            out=out,
        )
    )
    result = json.loads(out.read_text())["markov-tiny"]
    assert set(result["training"]) == {f"{name} 2" for name in ("gpt", "lstm", "conv")}
    # Embedding 32 x 64; per layer two matrices of 64 x 256 and a norm; the last norm.
    assert result["parameters"]["lstm"] == 32 * 64 + 2 * (2 * 64 * 256 + 64) + 64
    # Six taps of 64 x 128 and a projection per layer.
    conv = 32 * 64 + 2 * (6 * 64 * 128 + 64 * 64 + 64) + 64
    assert result["parameters"]["conv"] == conv
    for name, sweep in result["learning_rates"].items():
        assert sweep["config"]["architecture"] == name
        losses = sweep["final_val_loss"][0]
        best = losses.index(min(losses))
        assert sweep["best_learning_rate"] == [1e-3, 1e-2][best]
    printed = capsys.readouterr().out
    assert printed.strip() == table({"markov-tiny": result})
    assert "| markov tiny | `lstm` | 67,776 |" in printed
