"""`fit_curves`: fits a law without damage to a few loss curves, as a log holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lr_gym.surrogate.law import LawConstants, RunParams
from lr_gym.surrogate.replay import replay_runs
from lr_gym.surrogate.runs import RecordedRun, padded
from lr_gym.surrogate.search import Fit, FloatArray, Problem, Range, one_thread
from lr_gym.validation import check_integer

MIN_CURVES = 3
TOLERANCE = 0.05  # of the learning rate within a segment
FIRST_SCALE = 0.01  # of residuals over the loss, in the first search
MAX_SPREAD = 1.5  # of the peaks, that counts as one peak
# With these, nothing is damaged and no early phase shows.
_UNUSED: dict[str, float] = {
    "early_scale": 1e-9,
    "noise_onset": 1e-9,
    "overshoot": 0.0,
    "overshoot_pace": 0.1,
    "tolerance": 1e9,
    "tolerance_pace": 0.1,
    "max_log_lr_jump": 6.0,
    "damage_rate": 1e-9,
    "forgetting": 0.0,
}


def fit_curves(runs: Sequence[RecordedRun]) -> tuple[LawConstants, RunParams]:
    """Fit the constants of the law to loss curves of any lengths and spacing.

    Three runs of one model suffice: a constant learning rate, a schedule that decays,
    and one step of the learning rate. The curves may begin after the warm-up. The law
    then predicts other schedules with similar peaks. It knows no damage.

    Args:
        runs: At least 3, with the losses of a log.

    Returns:
        The constants, and what differs between the runs.

    Raises:
        ImportError: SciPy or threadpoolctl is missing.
        ValueError: There are too few runs.
    """
    check_integer("the number of runs", len(runs), MIN_CURVES)
    replay = replay_runs(runs, tolerance=TOLERANCE)
    losses = padded(runs, "val_loss")
    scale = float(np.nanmax(losses))
    # The loss of untrained weights follows no law.
    used = (padded(runs, "iterations") > 0).astype(float)

    def search(law: LawConstants, ranges: dict[str, Range], unit: float) -> Fit:
        return Problem(runs, replay, law, ranges, weights=used / unit).search()

    with one_thread():
        ranges = _ranges(runs)
        starts = [_start(scale, ranges, bend) for bend in (3.0, 30.0)]
        fits = [search(start, ranges, FIRST_SCALE * scale) for start in starts]
        best = min(fits, key=lambda fit: fit.cost)
        for _ in range(2):
            predicted = replay.predict(best.law, best.members)[0]
            unit = _typical(np.where(used > 0, predicted - losses, np.nan))
            best = search(best.law, ranges, max(unit, 1e-6 * scale))
    return best.law, best.members


def predict_curves(
    law: LawConstants, runs: Sequence[RecordedRun], members: RunParams | None = None
) -> FloatArray:
    """Return the losses that the law predicts at the runs' evaluations, (R, m).

    Args:
        law: From `fit_curves`.
        runs: Their learning rates and iterations count, not their losses.
        members: What differs between the runs; `None` is nothing.
    """
    return replay_runs(runs, tolerance=TOLERANCE).predict(law, members)[0]


def _ranges(runs: Sequence[RecordedRun]) -> dict[str, Range]:
    """Return what is fitted, with ranges in the units of the runs."""
    peaks = [float(run.rates.max()) for run in runs]
    peak = max(peaks)
    length = max(float(run.iterations[-1]) for run in runs)
    whole = peak * length
    pace = 300.0 / length / peak**0.2  # at the start of the search
    ranges: dict[str, Range] = {
        "floor": (0.6, 0.0, 1.0, False),
        "amplitude": (0.5, 0.01, 3.0, False),
        "exponent": (0.5, 0.03, 2.0, False),
        "progress_scale": (1e-3 * whole, 1e-6 * whole, whole, True),
        "noise_loss": (0.1, 1e-5, 100.0, True),
        "noise_rate": (3.0 * peak, 0.1 * peak, 1e3 * peak, True),
        "noise_decay_rate": (pace, 1e-4 * pace, 1e8 * pace, True),
        "noise_clock_exponent": (0.2, 0.0, 1.0, False),
        "slow_noise_share": (0.4, 0.0, 1.0, False),
        "slow_noise_pace": (0.1, 1e-3, 1.0, True),
    }
    if peak > MAX_SPREAD * min(peaks):
        ranges["saturation_rate"] = (10.0 * peak, 0.3 * peak, 1e4 * peak, True)
    return ranges


def _start(scale: float, ranges: dict[str, Range], bend: float) -> LawConstants:
    """Return where a search starts; the noise bends at `bend` thirds of the peak."""
    values: dict[str, Any] = {name: start for name, (start, *_) in ranges.items()}
    values["noise_rate"] *= bend / 3.0
    values["noise_loss"] *= scale * bend / 3.0
    for name in ("floor", "amplitude"):
        values[name] *= scale
    return LawConstants(
        initial_loss=scale,
        plateau=scale,
        divergence_rate=np.inf,
        **({"saturation_rate": 1e9} | _UNUSED | values),
    )


def _typical(residuals: FloatArray) -> float:
    """Return the standard deviation of normal residuals, by their median size."""
    return 1.4826 * float(np.nanmedian(np.abs(residuals)))
