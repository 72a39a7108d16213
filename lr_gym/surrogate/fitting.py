"""`fit_surrogate`: fits a `LossLaw` to recorded runs by nonlinear least squares.

Seeds differ, so each run has its own efficiency and tolerance. They are fitted with the
constants, under a normal prior. Their standard deviations become the law's spreads.
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
    has_diverged,
    measure_gap,
)
from lr_gym.surrogate.runs import RecordedRun, check_same_points, undone_chunks
from lr_gym.validation import check_integer

FloatArray = NDArray[np.float64]

RESIDUAL_SCALE = 0.03  # nats: the cost of larger residuals grows linearly
# Weights of evaluations before a fraction of the run; the end matters most.
EARLY_WEIGHTS = ((0.1, 0.15), (0.25, 0.4))
FINAL_WEIGHT = 4.0
MAX_DAMAGE = 0.2  # runs with less damage count as undamaged
MIN_RUNS = 8
PRIOR_SPREADS = (0.03, 0.15)  # of ln(efficiency) and ln(tolerance)
MAX_EVALUATIONS = 120  # of the residuals, per search
MAX_PASSES = 3  # through the starting points
MIN_IMPROVEMENT = 0.01  # fraction of the cost; a pass that saves less is the last

# Of each constant: start, lower and upper bound, and whether the scale is logarithmic.
# Losses are in units of the initial loss.
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
# Little damage at usual learning rates: another starting point for undamaged runs.
_LITTLE_DAMAGE: dict[str, Any] = {
    "tolerance": 0.004,
    "tolerance_pace": 0.02,
    "max_log_lr_jump": 0.25,
    "damage_rate": 0.05,
    "forgetting": 1.0,
}
# Fitted only if there is a generalization gap.
_GAP_SHARE: dict[str, _Range] = {"gap_share": (0.1, 0.0, 1.0, False)}


def fit_surrogate(
    runs: Sequence[RecordedRun],
    training: TrainingConfig,
    *,
    entropy_rate: float | None = None,
) -> LossLaw:
    """Fit a law of the loss curve to recorded runs.

    The runs should include constant, cosine, step and WSD schedules at three or more
    peak learning rates that span a factor of ten, some random actions, and some jumps
    of the learning rate up and down. ``benchmarks.surrogate.fitting`` collects such
    runs. The law interpolates between them; outside their range it extrapolates.

    Args:
        runs: At least 8, of one length and evaluated at the same iterations.
        training: Configuration that the runs share.
        entropy_rate: A known lower bound of the loss on the corpus, nats per character.

    Raises:
        ImportError: SciPy or threadpoolctl is missing.
        ValueError: There are too few runs, or their lengths differ.
    """
    check_integer("the number of runs", len(runs), MIN_RUNS)
    check_same_points(runs)
    survivors = [run for run in runs if not has_diverged(run)]
    check_integer("the number of runs that did not diverge", len(survivors), MIN_RUNS)
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
    """Return the constants of the dynamics, and the parameters of each run.

    Fit all constants to all runs first, roughly. Then fit them to the undamaged runs,
    and last the constants of damage to all runs. Several sets of constants fit the
    undamaged runs almost equally well, but only some fit the damaged runs too. So the
    last two fits repeat from several starting points, and the lowest total cost wins.
    """
    initial_loss = float(np.mean([run.val_loss[0] for run in runs]))
    defaults: dict[str, Any] = {
        name: start * (initial_loss if name in _LOSSES else 1.0)
        for name, (start, *_) in _FITTED.items()
    }
    law = LawConstants(initial_loss=initial_loss, divergence_rate=np.inf, **defaults)
    law, members, _ = _Problem(runs, law, _FITTED).search()
    rates = np.stack([run.rates for run in runs])
    points = np.asarray(runs[0].iterations)
    last = predict(law, rates, points, members, undone_chunks(runs))[1][-1]
    undamaged = [runs[run] for run in np.flatnonzero(last["damage"] < MAX_DAMAGE)]
    if len(undamaged) < MIN_RUNS:
        law, members, _ = _fit_damage(runs, law, defaults)
        return law, members
    law, members, _ = _Problem(undamaged, law, _FITTED).search()
    law = measure_gap(undamaged, law, members)
    fitted = _FITTED | (_GAP_SHARE if law.gap_scale > 0.0 else {})
    best = _Fit(law, members, np.inf)
    for _ in range(MAX_PASSES):
        before = best
        for start in _starting_points(before.law, defaults):
            learning = _Problem(undamaged, start, fitted).search()
            damage = _fit_damage(runs, learning.law, defaults)
            cost = learning.cost + damage.cost
            best = min(best, damage._replace(cost=cost), key=lambda fit: fit.cost)
        if best.cost > (1.0 - MIN_IMPROVEMENT) * before.cost:
            break
    return best.law, best.members


def _starting_points(law: LawConstants, defaults: dict[str, Any]) -> list[LawConstants]:
    """Return starting points for the fit to undamaged runs.

    Noise, slow learning and slight damage can explain the same losses. Each starting
    point resets the constants of one of them.
    """
    noise = {name: defaults[name] for name in _NOISE}
    learning = {name: defaults[name] for name in _LEARNING}
    little_noise = {"noise_loss": 0.3 * defaults["noise_loss"], **_LITTLE_NOISE}
    changes: tuple[dict[str, Any], ...] = (
        {},
        noise,
        learning,
        defaults,
        little_noise,
        _LITTLE_DAMAGE,
    )
    return [dataclasses.replace(law, **change) for change in changes]


def _fit_damage(
    runs: Sequence[RecordedRun], law: LawConstants, defaults: dict[str, Any]
) -> _Fit:
    """Fit the constants of damage to all runs; keep the others of `law`."""
    start = dataclasses.replace(law, **{name: defaults[name] for name in _DAMAGE})
    fit = _Problem(runs, start, {name: _FITTED[name] for name in _DAMAGE}).search()
    # Damaged runs say little about the efficiency of a seed: keep its spread.
    spread = law.efficiency_spread
    return fit._replace(law=dataclasses.replace(fit.law, efficiency_spread=spread))


class _Fit(NamedTuple):
    """The result of a search. The cost is half the sum of squared residuals."""

    law: LawConstants
    members: RunParams
    cost: float


class _Problem:
    """A least-squares problem: the residuals of recorded runs under the law.

    A solution is one vector: the fitted constants, then ln(efficiency) of every run,
    then `log_tolerance` of every run, both in units of their prior spread.
    """

    def __init__(
        self,
        runs: Sequence[RecordedRun],
        law: LawConstants,
        fitted: Mapping[str, _Range],
    ) -> None:
        """Prepare to fit the constants named in `fitted`, starting from `law`."""
        self.law = law
        self.rates = np.stack([run.rates for run in runs])
        self.points = np.asarray(runs[0].iterations)
        self.losses = np.stack([run.val_loss for run in runs])  # (R, m)
        self.usable = np.isfinite(self.losses)
        self.undone = undone_chunks(runs)
        progress = self.points / self.points[-1]
        weights = np.ones(len(progress))
        for fraction, weight in reversed(EARLY_WEIGHTS):
            weights[progress < fraction] = weight
        weights[0] = 0.0
        weights[-1] = FINAL_WEIGHT
        self.weights = weights / RESIDUAL_SCALE
        self.spreads = np.array(PRIOR_SPREADS)
        self.fitted = fitted

    def search(self) -> _Fit:
        """Return the best constants near those of `law`, and the runs' parameters.

        The spreads of the law are root mean squares of the runs' parameters, with
        their variance added. The prior keeps its width; a wider one would let these
        parameters explain whole runs.
        """
        solution, variance, cost = self._search(self._start())
        count = len(self.fitted)
        scaled = solution[count:].reshape(2, -1)  # (2, R)
        members = self._run_params(solution)
        scaled_variance = variance[count:].reshape(2, -1)
        spreads = self.spreads * np.sqrt((scaled**2 + scaled_variance).mean(axis=1))
        constants = self._constants(solution[None])
        fitted: dict[str, Any] = {
            name: float(np.ravel(getattr(constants, name))[0]) for name in self.fitted
        }
        law = dataclasses.replace(
            self.law,
            **fitted,
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
        """Return the unit of a constant while it is fitted."""
        return self.law.initial_loss if name in _LOSSES else 1.0

    def _search(self, solution: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """Return the best solution near `solution`, its variances, and its cost."""
        from scipy.optimize import least_squares

        bounds = np.array(
            [
                (np.log(low), np.log(high)) if log else (low, high)
                for _, low, high, log in self.fitted.values()
            ]
            + [(-6.0, 6.0)] * (2 * len(self.rates))
        ).T
        margin = 1e-6 * (bounds[1] - bounds[0])
        result = least_squares(
            self._residuals,
            np.clip(solution, bounds[0] + margin, bounds[1] - margin),
            self._jacobian,
            bounds=bounds,
            x_scale="jac",
            max_nfev=MAX_EVALUATIONS,
        )
        information = result.jac.T @ result.jac
        variance = np.diag(np.linalg.pinv(information, hermitian=True))
        return result.x, np.minimum(variance, 1.0), float(result.cost)

    def _constants(self, solutions: FloatArray) -> LawConstants:
        """Return the constants of K solutions, (K, 1) each."""
        values = {
            name: (np.exp(column) if log else column)[:, None] * self._unit(name)
            for (name, (*_, log)), column in zip(
                self.fitted.items(), solutions.T, strict=False
            )
        }
        return dataclasses.replace(self.law, **values)

    def _run_params(self, solutions: FloatArray) -> RunParams:
        """Return the runs' parameters of solutions, (..., R)."""
        scaled = solutions[..., len(self.fitted) :]
        scaled = scaled.reshape(*solutions.shape[:-1], 2, -1)
        return RunParams(
            np.exp(scaled[..., 0, :] * self.spreads[0]),
            scaled[..., 1, :] * self.spreads[1],
        )

    def _predicted(self, solutions: FloatArray) -> FloatArray:
        """Return the validation losses under K solutions, (K, R, m)."""
        law, members = self._constants(solutions), self._run_params(solutions)
        return predict(law, self.rates, self.points, members, self.undone)[0]

    def _weighted_residuals(self, solutions: FloatArray) -> FloatArray:
        """Return the weighted residuals r of K solutions as 2 (sqrt(1 + |r|) - 1).

        The square of this grows as |r|, so that one spike does not dominate the fit.

        Returns:
            (K, R, m), with the sign of r.
        """
        weighted = (self._predicted(solutions) - self.losses) * self.weights
        weighted = np.where(self.usable, np.nan_to_num(weighted, posinf=1e6), 0.0)
        roots = np.sqrt(1.0 + np.abs(weighted))
        return np.asarray(np.sign(weighted) * 2.0 * (roots - 1.0))

    def _residuals(self, solution: FloatArray) -> FloatArray:
        prior = solution[len(self.fitted) :]
        residuals = self._weighted_residuals(solution[None])[0]
        return np.concatenate([residuals.ravel(), prior])

    def _jacobian(self, solution: FloatArray) -> FloatArray:
        """Return the Jacobian by finite differences.

        A run's parameters affect that run alone, so one difference per parameter serves
        all runs.
        """
        count, runs = len(self.fitted), len(self.rates)
        step = 1e-5
        shifted = np.tile(solution, (1 + count + 2, 1))
        for constant in range(count):
            shifted[1 + constant, constant] += step
        for kind in range(2):
            columns = slice(count + kind * runs, count + (kind + 1) * runs)
            shifted[1 + count + kind, columns] += step
        values = self._weighted_residuals(shifted)  # (K, R, m)
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
    """Return a context in which linear algebra uses one thread.

    Matrices this small gain nothing from threads. On a busy machine, threads wait for
    each other longer than the work takes.
    """
    try:
        import scipy.optimize  # noqa: F401 - only loaded libraries are limited
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            f"fit_surrogate needs {error.name}: pip install 'lr-gym[surrogate]'"
        ) from error
    return threadpool_limits(1, user_api="blas")  # type: ignore[no-any-return]
