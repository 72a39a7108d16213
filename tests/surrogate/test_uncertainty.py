"""Intervals of predictions: how often losses of fresh runs lie in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lr_gym import fit_surrogate, load_law, predict_interval, preset
from lr_gym.surrogate.runs import padded
from tests.helpers.laws import make_constants, make_law, planted_runs


def test_intervals_hold_most_losses_of_fresh_runs(tmp_path: Path) -> None:
    runs = planted_runs(make_constants(), 1)
    law = fit_surrogate(runs, preset("tiny"), folds=3)
    assert len(law.ensemble) == 3
    assert len(law.errors) == 36  # of 37 runs, one diverged
    law.save(tmp_path / "law.json")
    loaded = load_law(tmp_path / "law.json")
    assert loaded == law
    fresh = [
        run
        for seed in (101, 102, 103)
        for run in planted_runs(make_constants(), seed)[:-1]
    ]
    final = padded(fresh, "val_loss")[:, -1]
    widths = []
    for coverage, least in ((0.5, 0.35), (0.9, 0.8)):
        interval = predict_interval(loaded, fresh, coverage)
        inside = (interval.low[:, -1] <= final) & (final <= interval.high[:, -1])
        assert least < inside.mean() < 1.0
        widths.append(np.median(interval.high[:, -1] - interval.low[:, -1]))
    assert widths[0] < 0.7 * widths[1] < 0.2


def test_wrong_arguments_are_refused() -> None:
    runs = planted_runs(make_constants(), 1)
    for folds in (-1, 30):
        with pytest.raises(ValueError, match=r"folds must be"):
            fit_surrogate(runs, preset("tiny"), folds=folds)
    with pytest.raises(ValueError, match="folds must be 0, or 2 and more"):
        fit_surrogate(runs, preset("tiny"), folds=1)
    known = replace(make_law(), ensemble=(make_constants(),), errors=(1.0,))
    with pytest.raises(ValueError, match="coverage must be"):
        predict_interval(known, runs, 1.0)
    with pytest.raises(ValueError, match="the law has no ensemble"):
        predict_interval(make_law(), runs)
    with pytest.raises(ValueError, match="ensemble and errors must both be given"):
        replace(make_law(), errors=(1.0,))
