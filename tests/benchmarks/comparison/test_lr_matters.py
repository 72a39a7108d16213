"""The sweep over constant learning rates: margins, and results of other sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.comparison.lr_matters import Args, main


def test_a_sweep_finds_the_best_rate_and_keeps_other_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep.json"
    out.write_text('{"other-tiny": {"kept": true}}')
    rates = (1e-4, 1e-3, 1e-2, 1e3)
    main(Args(scale=("tiny",), learning_rates=rates, seeds=1, max_iters=30, out=out))
    results = json.loads(out.read_text())
    assert results["other-tiny"] == {"kept": True}
    result = results["markov-tiny"]
    (losses,) = result["final_val_loss"]
    assert losses[3] is None
    best = losses.index(min(losses[:3]))
    assert result["best_learning_rate"] == rates[best]
    assert result["best_mean_val_loss"] == losses[best]
    lower = losses[best - 1] - losses[best]
    assert result["margin_10x_lower"] == pytest.approx(lower)
    assert result["config"]["max_iters"] == 30
    assert "diverged" in capsys.readouterr().out
