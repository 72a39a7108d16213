"""The trials that the default controller's constants were chosen by, in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rule_choice import UNBOUNDED, Args, DevTask, Variant, main, table
from lr_gym import load_controller, update_size
from lr_gym.controllers import UpdateSizeRule


def test_variants_differ_in_the_measure_and_the_bound_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = Args(
        peaks=(1e-3, 1e-2),
        seeds=2,
        jobs=tmp_path / "jobs",
        out=tmp_path / "rule_choice.json",
    )
    tasks = (DevTask("markov", 1, 32, 60), DevTask("markov", 2, 32, 30, batch_size=8))
    variants = (Variant(0.0, UNBOUNDED), Variant(1.2, UNBOUNDED), Variant(1.2, 1.5))
    usual = update_size.WEIGHTS
    result = main(args, tasks, variants)
    assert usual == update_size.WEIGHTS  # what comes after in this process is measured
    printed = capsys.readouterr().out

    assert result == json.loads(args.out.read_text())
    assert np.shape(result["wsd"]) == (2, 2, 2)
    by_name = {v["name"]: v["final_val_loss"] for v in result["variants"]}
    assert len(by_name) == len(variants)
    assert all(np.shape(losses) == (2, 2, 2) for losses in by_name.values())
    assert by_name["weights 0, bound none"] != by_name["weights 1.2, bound none"]
    rules = [load_controller(path) for path in args.jobs.glob("*.safetensors")]
    bounds = sorted(r.most_rise for r in rules if isinstance(r, UpdateSizeRule))
    assert bounds == [1.5, UNBOUNDED]

    records = [json.loads(p.read_text()) for p in args.jobs.rglob("*.json")]
    assert len(records) == 2 * (1 + len(variants))
    sizes = {(r["training"]["n_layer"], r["training"]["batch_size"]) for r in records}
    assert sizes == {(1, 16), (2, 8)}

    for number, row in enumerate(table(result)):
        assert row["task"] == tasks[number].name
        peaks = np.mean(result["wsd"][number], axis=1)
        assert row["best of 2 WSD peaks"] == f"{peaks.min():.3f}"
        for name, losses in by_name.items():
            worst = np.max(losses[number])
            assert row[name] == f"{np.mean(losses[number]):.3f} ({worst:.2f})"
            assert row[name] in printed

    with pytest.raises(SystemExit, match="--seeds must be at least 1, got 0"):
        main(Args(seeds=0, jobs=tmp_path / "none", out=tmp_path / "none.json"), tasks)
    assert not (tmp_path / "none.json").exists()
