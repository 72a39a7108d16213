"""The ablation of the default rule, in small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.controller.rule_choice import (
    TASKS,
    UNBOUNDED,
    Args,
    Variant,
    main,
    table,
)
from lr_gym import load_controller
from lr_gym.controllers import UpdateSizeRule
from lr_gym.trainers import update_size


def test_variants_differ_in_the_measure_and_the_bound_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = Args(
        peaks=(1e-3, 1e-2),
        only=(1,),
        starts=(0.08,),
        seeds=2,
        jobs=tmp_path / "jobs",
        out=tmp_path / "rule_choice.json",
    )
    small = replace(TASKS[0], corpus="markov", n_layer=1, max_iters=60)
    tasks = (TASKS[0], replace(small, batch_size=8))
    variants = (Variant(0.0, UNBOUNDED), Variant(1.2, UNBOUNDED), Variant(1.2, 1.5))
    default = update_size.RELATIVE_CHANGE_FACTOR
    result = main(args, tasks, variants)
    assert default == update_size.RELATIVE_CHANGE_FACTOR  # restored
    printed = capsys.readouterr().out

    assert result == json.loads(args.out.read_text())
    assert np.shape(result["wsd"]) == (1, 2, 2)
    losses_of = [variant["final_val_loss"] for variant in result["variants"]]
    by_name = {v.name: losses for v, losses in zip(variants, losses_of, strict=True)}
    assert len(by_name) == len(variants)
    assert all(np.shape(losses) == (1, 1, 2) for losses in by_name.values())
    assert by_name["neither"] != by_name["weight term only"]
    rules = [load_controller(path) for path in args.jobs.glob("*.safetensors")]
    bounds = sorted(r.most_rise for r in rules if isinstance(r, UpdateSizeRule))
    assert bounds == [1.5, UNBOUNDED]

    records = [json.loads(p.read_text()) for p in args.jobs.rglob("*.json")]
    assert len(records) == 1 + len(variants)
    sizes = {(r["training"]["n_layer"], r["training"]["batch_size"]) for r in records}
    assert sizes == {(1, 8)}
    early = {tuple(r["runs"][0]["curves"]["iteration"][:3]) for r in records}
    assert (0, 1, 2) in early  # decisions at shares of the run, not every 10 iterations

    names = [row["task"] for row in table(result)]
    assert names == ["markov 1x32, 60 iterations"]
    for number, row in enumerate(table(result)):
        peaks = np.mean(result["wsd"][number], axis=1)
        assert row["best of 2 WSD peaks"] == f"{peaks.min():.3f}"
        for name, losses in by_name.items():
            worst = np.max(losses[number])
            assert row[name] == f"{np.mean(losses[number]):.3f} ({worst:.2f})"
            assert row[name] in printed

    unused = Args(jobs=tmp_path / "none", out=tmp_path / "none.json")
    for overrides, message in (
        ({"only": (0,), "seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"only": (2,)}, r"--only must be from 0 to 1, got \[2\]"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(replace(unused, **overrides), tasks)
    assert not unused.out.exists()
