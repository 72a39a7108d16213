"""`wrap_training`: make a `Trainer` from the functions of your own training."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.trainers.base import FloatArray, check_chunk


def wrap_training(
    *,
    reset: Callable[[int], object],
    train: Callable[[int], float],
    evaluate: Callable[[], float],
    set_learning_rate: Callable[[float], object],
    get_state: Callable[[], Any] | None = None,
    set_state: Callable[[Any], object] | None = None,
    telemetry: Callable[[], Mapping[str, float]] | None = None,
) -> WrappedTrainer:
    """Return a trainer for ``gym.make("LRTuningEnv-v0", trainer=...)``.

    Args:
        reset: Starts a fresh run from a seed, at iteration 0.
        train: Trains for the given number of iterations at the learning rate set last;
            returns the mean training loss over them. It is called once for each stretch
            of iterations at the same learning rate, so several times per step during
            warm-up.
        evaluate: Returns the validation loss, 0 or more; must not affect training. NaN
            or inf means that the run has diverged; it is then not trained further.
        set_learning_rate: Sets the learning rate of the following iterations.
        get_state: Returns weights and optimizer state; the return value is copied.
            Undo and agents that restore snapshots need it, and `set_state`.
        set_state: Restores what `get_state` returned. The data stream does not go back.
        telemetry: Returns ``grad_norm`` and ``update_size`` of the last chunk. Only
            the features of these names need it.

    Raises:
        TypeError: An argument is not callable.
        ValueError: Only one of `get_state` and `set_state` is given.
    """
    functions = {
        "reset": reset,
        "train": train,
        "evaluate": evaluate,
        "set_learning_rate": set_learning_rate,
        "get_state": get_state,
        "set_state": set_state,
        "telemetry": telemetry,
    }
    for name, function in functions.items():
        required = name in ("reset", "train", "evaluate", "set_learning_rate")
        if not callable(function) and (required or function is not None):
            raise TypeError(f"{name} must be a function, got {function!r}")
    if (get_state is None) != (set_state is None):
        raise ValueError("get_state and set_state go together: pass both or neither")
    return WrappedTrainer(functions)


class WrappedTrainer:
    """One run, trained by the functions of its user; see `wrap_training`."""

    size = 1

    def __init__(self, functions: Mapping[str, Callable[..., Any] | None]) -> None:
        """Keep the functions by their names in `wrap_training`."""
        self._functions = functions
        self._iteration = 0
        self._seconds = 0.0
        self._diverged = False
        self._learning_rate = 0.0  # passed to `set_learning_rate` last; 0 before

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start a fresh run; see `Trainer.reset`."""
        for seed in seeds:
            self._call("reset", int(seed))
            self._iteration, self._seconds = 0, 0.0
            self._diverged, self._learning_rate = False, 0.0

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train, with one call per stretch of equal rates; see `Trainer.train`."""
        _, rates = check_chunk(iterations, learning_rate, 1)
        started = time.perf_counter()
        total = 0.0
        n_updates = 0
        for rate, stretch in groupby(rates[0].tolist()):
            length = len(list(stretch))
            # A callback after every update needs a call per update.
            sizes = [length] if on_iteration is None else [1] * length
            for size in sizes:
                if self._diverged:
                    break
                self._call("set_learning_rate", rate)
                self._learning_rate = rate
                loss = float(self._call("train", size))
                self._diverged = not np.isfinite(loss)
                total += loss * size
                n_updates += size
                if on_iteration is not None:
                    on_iteration()
        self._iteration += rates.shape[1]
        self._seconds += time.perf_counter() - started
        return np.array([total / n_updates if n_updates else np.nan])

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss, (1,); see `Trainer.evaluate`.

        Raises:
            ValueError: The loss is negative, so that the reward would have no bound.
        """
        if members is not None and len(members) == 0:
            return np.empty(0)
        loss = float(self._call("evaluate"))
        if loss < 0:
            raise ValueError(f"evaluate must return a loss of 0 or more, got {loss!r}")
        self._diverged = self._diverged or not np.isfinite(loss)
        return np.array([loss])

    def diverged(self) -> NDArray[np.bool_]:
        """Return whether a loss was not finite, (1,)."""
        return np.array([self._diverged])

    def snapshot(self, members: Sequence[int]) -> Mapping[str, Any]:
        """Return a copy of the run's state; see `Trainer.snapshot`.

        Raises:
            NotImplementedError: `get_state` was not given.
        """
        return {
            "state": copy.deepcopy(self._call("get_state")),
            "iteration": self._iteration,
            "diverged": self._diverged,
            "learning_rate": self._learning_rate,
        }

    def restore(
        self, members: Sequence[int], state: Mapping[str, Any], *, rewind: bool = True
    ) -> None:
        """Put a snapshot back; see `Trainer.restore`.

        Raises:
            NotImplementedError: `set_state` was not given.
        """
        self._call("set_state", copy.deepcopy(state["state"]))
        self._diverged = bool(state["diverged"])
        self._learning_rate = float(state["learning_rate"])
        if rewind:
            self._iteration = int(state["iteration"])

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return (1,) arrays; see `Trainer.telemetry`.

        ``tokens`` counts updates. ``learning_rate`` is what `set_learning_rate` got
        last. The user's function is called only if `names` holds anything else.
        """
        measured = {
            "tokens": float(self._iteration),
            "seconds": self._seconds,
            "learning_rate": self._learning_rate,
        }
        function = self._functions["telemetry"]
        if function is not None and (names is None or not set(names) <= set(measured)):
            measured = {**function(), **measured}
        return {name: np.array([value]) for name, value in measured.items()}

    def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - the user's
        function = self._functions[name]
        if function is None:
            raise NotImplementedError(
                f"restoring a snapshot needs {name}: pass it to wrap_training"
            )
        return function(*arguments)
