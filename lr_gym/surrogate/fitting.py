"""`fit_surrogate`: from recorded runs to a `LossLaw`, by nonlinear least squares.

Every run has an efficiency and a tolerance of its own, since seeds differ. They are
fitted along with the constants, under a normal prior, and their size becomes the law's
spread over seeds.
Needs SciPy and threadpoolctl: ``pip install 'lr-gym[surrogate]'``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lr_gym.config import TrainingConfig
from lr_gym.surrogate.law import LawConstants, LossLaw, RunParams, predict
from lr_gym.surrogate.residuals import (
    describe_noise,
    divergence_rate,
    exploded,
    measure_gap,
)
from lr_gym.surrogate.runs import RecordedRun, check_same_points, undone_chunks
from lr_gym.validation import check_integer

FloatArray = NDArray[np.float64]

TOLERATED = 0.03  # nats: residuals above count in proportion, not squared
EARLY = ((0.1, 0.15), (0.25, 0.4))  # share of the run, weight: the end matters most
FINAL_WEIGHT = 4.0
UNHARMED = 0.2  # damage up to which a run shows how undamaged ones learn
FEWEST = 8  # runs
FIRST_SPREADS = (0.03, 0.15)  # of efficiency and tolerance, while fitting
EVALUATIONS = 120  # of the residuals, in each search
PASSES = 3  # at most, through the places to start from
MIN_IMPROVEMENT = 0.01  # share of the cost that a pass has to save for another

# Constant: start, bounds, and whether it is fitted on a logarithmic scale. Losses are
# in units of the initial one.
_Range = tuple[float, float, float, bool]
_FITTED: dict[str, _Range] = {
    "floor": (0.1, 0.0, 0.8, False),
    "amplitude": (0.5, 0.05, 1.0, False),
    "plateau": (0.78, 0.3, 0.9, False),
    "exponent": (0.25, 0.03, 2.0, False),
    "progress_scale": (0.3, 1e-5, 10.0, True),
    "early_scale": (0.025, 1e-3, 1.0, True),
    "saturation_rate": (0.0022, 1e-4, 1.0, True),
    "noise_loss": (0.02, 1e-5, 1.0, True),
    "noise_rate": (0.0002, 1e-4, 1.0, True),
    "noise_onset": (0.7, 1e-5, 10.0, True),
    "noise_decay_rate": (0.25, 0.05, 1e4, True),
    "noise_clock_exponent": (0.2, 0.0, 1.0, False),
    "overshoot": (1.0, 0.0, 5.0, False),
    "overshoot_pace": (0.008, 2e-3, 0.5, True),
    "tolerance": (0.0006, 1e-4, 1.0, True),
    "tolerance_pace": (0.02, 0.015, 0.04, True),
    "max_log_lr_jump": (1.8, 0.2, 6.0, False),
    "damage_rate": (0.06, 1e-4, 10.0, True),
    "forgetting": (1.0, 0.0, 5.0, False),
}
_LOSSES = ("floor", "amplitude", "plateau", "noise_loss")
_DAMAGE = (
    "plateau",
    "tolerance",
    "tolerance_pace",
    "max_log_lr_jump",
    "damage_rate",
    "forgetting",
)
_LEARNING = (
    "floor",
    "amplitude",
    "exponent",
    "progress_scale",
    "early_scale",
    "saturation_rate",
)
_NOISE = tuple(name for name in _FITTED if name.startswith(("noise", "overshoot")))
_LITTLE_NOISE: dict[str, Any] = {"noise_rate": 1.5e-4, "noise_onset": 0.01}
# Damage that hardly touches a run at usual rates: where a search among undamaged runs
# may start as well.
_HARDLY: dict[str, Any] = {
    "tolerance": 0.004,
    "tolerance_pace": 0.02,
    "max_log_lr_jump": 0.25,
    "damage_rate": 0.05,
    "forgetting": 1.0,
}
# Where there is a gap worth a mention:
_SHARE: dict[str, _Range] = {"gap_share": (0.1, 0.0, 1.0, False)}


def fit_surrogate(
    runs: Sequence[RecordedRun],
    training: TrainingConfig,
    *,
    entropy_rate: float | None = None,
) -> LossLaw:
    """Fit a law of the loss curve to recorded runs.

    Constant, cosine, step and WSD schedules at three or more peak rates a factor of ten
    or more apart, some runs of random actions, and some jumps of the rate up and down
    determine it; ``benchmarks.surrogate.fitting`` collects such runs. The law
    describes what is between them, and guesses beyond.

    Args:
        runs: At least 8, all of one length and evaluated at the same iterations.
        training: The settings that the runs share.
        entropy_rate: The corpus' known floor of the loss, nats per character.

    Raises:
        ImportError: SciPy or threadpoolctl is missing.
        ValueError: Too few runs, or runs of different lengths.
    """
    check_integer("the number of runs", len(runs), FEWEST)
    check_same_points(runs)
    survivors = [run for run in runs if not exploded(run)]
    check_integer("the number of runs that did not diverge", len(survivors), FEWEST)
    with _one_thread():
        constants, members = _fit(survivors)
    constants = dataclasses.replace(constants, divergence_rate=divergence_rate(runs))
    constants = describe_noise(survivors, constants, members)
    peaks = [float(run.rates.max()) for run in survivors]
    return LossLaw(
        training=training,
        constants=constants,
        entropy_rate=entropy_rate,
        lowest_rate=min(peaks),
        highest_rate=max(peaks),
        runs=len(runs),
    )


def _fit(runs: Sequence[RecordedRun]) -> tuple[LawConstants, RunParams]:
    """Return the constants of the dynamics, and what is each run's own.

    First everything on all runs, roughly; then how runs learn, on those that the rough
    fit finds unharmed; then damage alone, on all runs again. Unharmed runs are
    explained almost as well in several ways, of which only some leave room for the
    damage of the others: what follows the rough fit starts from several places, and
    the one counts that explains both best.
    """
    first_loss = float(np.mean([run.val_loss[0] for run in runs]))
    first: dict[str, Any] = {
        name: start * (first_loss if name in _LOSSES else 1.0)
        for name, (start, *_) in _FITTED.items()
    }
    law = LawConstants(initial_loss=first_loss, divergence_rate=np.inf, **first)
    law, members, _ = _Problem(runs, law, _FITTED).search()
    rates = np.stack([run.rates for run in runs])
    points = np.asarray(runs[0].iterations)
    last = predict(law, rates, points, members, undone_chunks(runs))[1][-1]
    chosen = [runs[row] for row in np.flatnonzero(last["damage"] < UNHARMED)]
    if len(chosen) < FEWEST:
        law, members, _ = _fit_damage(runs, law, first)
        return law, members
    law, members, _ = _Problem(chosen, law, _FITTED).search()
    law = measure_gap(chosen, law, members)
    fitted = _FITTED | (_SHARE if law.gap_scale > 0.0 else {})
    best = _Fit(law, members, np.inf)
    for _ in range(PASSES):
        before = best
        for start in _starts(before.law, first):
            learned = _Problem(chosen, start, fitted).search()
            damaged = _fit_damage(runs, learned.law, first)
            cost = learned.cost + damaged.cost
            best = min(best, damaged._replace(cost=cost), key=lambda fit: fit.cost)
        if best.cost > (1.0 - MIN_IMPROVEMENT) * before.cost:
            break
    return best.law, best.members


def _starts(law: LawConstants, first: dict[str, Any]) -> list[LawConstants]:
    """Return where to search for constants of unharmed runs from, having found `law`.

    What passes for noise may be the pace of learning, the gap between training and
    validation, or a little damage; each start takes one of them back.
    """
    noise = {name: first[name] for name in _NOISE}
    learning = {name: first[name] for name in _LEARNING}
    little = {"noise_loss": 0.3 * first["noise_loss"], **_LITTLE_NOISE}
    changes: tuple[dict[str, Any], ...] = (
        {},
        noise,
        learning,
        first,
        little,
        _HARDLY,
    )
    return [dataclasses.replace(law, **change) for change in changes]


def _fit_damage(
    runs: Sequence[RecordedRun], law: LawConstants, first: dict[str, Any]
) -> _Fit:
    """Return `law` with the constants of damage that fit all runs."""
    start = dataclasses.replace(law, **{name: first[name] for name in _DAMAGE})
    found = _Problem(runs, start, {name: _FITTED[name] for name in _DAMAGE}).search()
    # Damaged runs say little of how efficient a seed is: as the unharmed ones had it.
    spread = law.efficiency_spread
    return found._replace(law=dataclasses.replace(found.law, efficiency_spread=spread))


class _Fit(NamedTuple):
    """What a search found: half the sum of squared residuals is its cost."""

    law: LawConstants
    members: RunParams
    cost: float


class _Problem:
    """Residuals of recorded runs, and the search for constants that make them small.

    A solution is one vector: the fitted constants, then every run's ln(efficiency) and
    shift of ln(tolerance), in units of their spread.
    """

    def __init__(
        self,
        runs: Sequence[RecordedRun],
        law: LawConstants,
        fitted: Mapping[str, _Range],
    ) -> None:
        """Prepare to fit the constants named in `fitted`, from those of `law` on."""
        self.law = law
        self.rates = np.stack([run.rates for run in runs])
        self.points = np.asarray(runs[0].iterations)
        self.losses = np.stack([run.val_loss for run in runs])  # (R, m)
        self.usable = np.isfinite(self.losses)
        self.undone = undone_chunks(runs)
        progress = self.points / self.points[-1]
        weights = np.ones(len(progress))
        for share, weight in reversed(EARLY):
            weights[progress < share] = weight
        weights[0] = 0.0
        weights[-1] = FINAL_WEIGHT
        self.weights = weights / TOLERATED
        self.spreads = np.array(FIRST_SPREADS)
        self.fitted = fitted

    def search(self) -> _Fit:
        """Return the best constants near the first ones, and the runs' own.

        The law's spreads are the root mean square of what the runs are expected to have
        of their own; the prior keeps its width, or it would explain whole runs away.
        """
        solution, variance, cost = self._search(self._start())
        count = len(self.fitted)
        own = solution[count:].reshape(2, -1)
        members = RunParams(np.exp(own[0] * self.spreads[0]), own[1] * self.spreads[1])
        certain = variance[count:].reshape(2, -1)
        spreads = self.spreads * np.sqrt((own**2 + certain).mean(axis=1))
        found = self._constants(solution[None])
        numbers: dict[str, Any] = {
            name: float(np.ravel(getattr(found, name))[0]) for name in self.fitted
        }
        law = dataclasses.replace(
            self.law,
            **numbers,
            efficiency_spread=float(spreads[0]),
            tolerance_spread=float(spreads[1]),
        )
        return _Fit(law, members, cost)

    def _start(self) -> FloatArray:
        constants = []
        for name, (*_, log) in self.fitted.items():
            value = getattr(self.law, name) / self._unit(name)
            constants.append(np.log(value) if log else value)
        return np.array([*constants, *np.zeros(2 * len(self.rates))])

    def _unit(self, name: str) -> float:
        """Return what a constant is measured in while it is fitted."""
        return self.law.initial_loss if name in _LOSSES else 1.0

    def _search(self, solution: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """Return the best solution near one, the variance of its entries, its cost."""
        from scipy.optimize import least_squares

        bounds = np.array(
            [
                (np.log(low), np.log(high)) if log else (low, high)
                for _, low, high, log in self.fitted.values()
            ]
            + [(-6.0, 6.0)] * (2 * len(self.rates))
        ).T
        margin = 1e-6 * (bounds[1] - bounds[0])
        found = least_squares(
            self._residuals,
            np.clip(solution, bounds[0] + margin, bounds[1] - margin),
            self._jacobian,
            bounds=bounds,
            x_scale="jac",
            max_nfev=EVALUATIONS,
        )
        information = found.jac.T @ found.jac
        variance = np.diag(np.linalg.pinv(information, hermitian=True))
        return found.x, np.minimum(variance, 1.0), float(found.cost)

    def _constants(self, solutions: FloatArray) -> LawConstants:
        """Return the constants of several solutions at once, (K, 1) each."""
        values = {
            name: (np.exp(column) if log else column)[:, None] * self._unit(name)
            for (name, (*_, log)), column in zip(
                self.fitted.items(), solutions.T, strict=False
            )
        }
        return dataclasses.replace(self.law, **values)

    def _losses(self, solutions: FloatArray) -> FloatArray:
        own = solutions[:, len(self.fitted) :].reshape(len(solutions), 2, -1)
        members = RunParams(
            np.exp(own[:, 0] * self.spreads[0]), own[:, 1] * self.spreads[1]
        )
        law = self._constants(solutions)
        found = predict(law, self.rates, self.points, members, self.undone)
        return found[0]  # (K, R, m)

    def _weighted(self, solutions: FloatArray) -> FloatArray:
        """Return weighted residuals, (K, R, m), growing as a root once they are large.

        The square of sqrt(1 + |r|) - 1 grows as |r|: one spike does not rule the fit.
        """
        found = (self._losses(solutions) - self.losses) * self.weights
        found = np.where(self.usable, np.nan_to_num(found, posinf=1e6), 0.0)
        return np.asarray(np.sign(found) * 2.0 * (np.sqrt(1.0 + np.abs(found)) - 1.0))

    def _residuals(self, solution: FloatArray) -> FloatArray:
        prior = solution[len(self.fitted) :]
        return np.concatenate([self._weighted(solution[None])[0].ravel(), prior])

    def _jacobian(self, solution: FloatArray) -> FloatArray:
        """Return the derivatives by differences; all runs' own at once, (., size)."""
        count, runs = len(self.fitted), len(self.rates)
        step = 1e-5
        shifted = np.tile(solution, (1 + count + 2, 1))
        for row in range(count):
            shifted[1 + row, row] += step
        for kind in range(2):
            own = slice(count + kind * runs, count + (kind + 1) * runs)
            shifted[1 + count + kind, own] += step
        values = self._weighted(shifted)  # (K, R, m)
        slopes = (values[1:] - values[:1]) / step
        points = slopes.shape[2]
        jacobian = np.zeros((runs * points + 2 * runs, len(solution)))
        jacobian[: runs * points, :count] = slopes[:count].reshape(count, -1).T
        for kind in range(2):
            for run in range(runs):
                rows = slice(run * points, (run + 1) * points)
                column = count + kind * runs + run
                jacobian[rows, column] = slopes[count + kind, run]
        jacobian[runs * points :, count:] = np.eye(2 * runs)
        return jacobian


def _one_thread() -> AbstractContextManager[Any]:
    """Keep linear algebra to the calling thread, in a context.

    On matrices as small as these, threads gain nothing, and beside another busy process
    they wait for one another for longer than the work takes.
    """
    try:
        import scipy.optimize  # noqa: F401 - what is not loaded yet is not limited
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            f"fit_surrogate needs {error.name}: pip install 'lr-gym[surrogate]'"
        ) from error
    return threadpool_limits(1, user_api="blas")  # type: ignore[no-any-return]
