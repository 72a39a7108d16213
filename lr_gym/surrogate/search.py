"""The least-squares search for a law's constants and the runs' own parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lr_gym.surrogate.law import LawConstants, RunParams
from lr_gym.surrogate.replay import Replay
from lr_gym.surrogate.runs import RecordedRun, padded

FloatArray = NDArray[np.float64]
Range = tuple[float, float, float, bool]  # start, bounds, whether it is logarithmic

PRIOR_SPREADS = (0.03, 0.15)  # of ln(efficiency) and ln(tolerance)
MAX_EVALUATIONS = 120  # of the residuals, per search
LOSSES = ("floor", "amplitude", "plateau", "noise_loss")  # in units of initial_loss


class Fit(NamedTuple):
    """The result of a search. The cost is half the sum of squared residuals."""

    law: LawConstants
    members: RunParams
    cost: float


class Problem:
    """A least-squares problem: the residuals of recorded runs under the law.

    A solution is one vector: the fitted constants, then ln(efficiency) of every run,
    then `log_tolerance` of every run, both in units of their prior spread.
    """

    def __init__(
        self,
        runs: Sequence[RecordedRun],
        replay: Replay,
        law: LawConstants,
        fitted: Mapping[str, Range],
        *,
        weights: FloatArray,
    ) -> None:
        """Prepare to fit the constants named in `fitted`, starting from `law`.

        Args:
            runs: What was measured.
            replay: The same runs, for predictions.
            law: Where the search starts; constants that are not fitted keep its values.
            fitted: The ranges of the others.
            weights: Of the residuals, 1 / nats, (R, m) or (m,).
        """
        self.law = law
        self.replay = replay
        self.losses = padded(runs, "val_loss")
        self.usable = np.isfinite(self.losses)
        self.weights = weights
        self.spreads = np.array(PRIOR_SPREADS)
        self.fitted = fitted

    def search(self) -> Fit:
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
        return Fit(law, members, cost)

    def _start(self) -> FloatArray:
        constants = []
        for name, (*_, log) in self.fitted.items():
            value = getattr(self.law, name) / self._unit(name)
            constants.append(np.log(value) if log else value)
        return np.array([*constants, *np.zeros(2 * self.replay.runs)])

    def _unit(self, name: str) -> float:
        """Return the unit of a constant while it is fitted."""
        return self.law.initial_loss if name in LOSSES else 1.0

    def _search(self, solution: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """Return the best solution near `solution`, its variances, and its cost."""
        from scipy.optimize import least_squares

        bounds = np.array(
            [
                (np.log(low), np.log(high)) if log else (low, high)
                for _, low, high, log in self.fitted.values()
            ]
            + [(-6.0, 6.0)] * (2 * self.replay.runs)
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
        return self.replay.predict(law, members)[0]

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
        count, runs = len(self.fitted), self.replay.runs
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


def one_thread() -> AbstractContextManager[Any]:
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
