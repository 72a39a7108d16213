"""`wrap_training`: a training of one's own, as functions, becomes a `Trainer`."""

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
        train: Makes that many updates at the rate set last; returns the mean training
            loss over them. A rate that changes within a chunk, as in warm-up, gets
            several calls.
        evaluate: Returns the validation loss, 0 or more, and leaves no trace on the
            training. NaN and inf are outcomes: the run has diverged, and is not trained
            further.
        set_learning_rate: Sets the rate of the updates that follow.
        get_state: Returns what the updates change, weights and optimizer; it is copied.
            `allow_undo` and agents that go back need it, and `set_state`.
        set_state: Puts a state back. The stream of data moves on where it is.
        telemetry: Returns ``grad_norm`` and ``update_size`` of the last chunk, which
            only the features of these names need.

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
        needed = name in ("reset", "train", "evaluate", "set_learning_rate")
        if not callable(function) and (needed or function is not None):
            raise TypeError(f"{name} must be a function, got {function!r}")
    if (get_state is None) != (set_state is None):
        raise ValueError("get_state and set_state go together: give both, or neither")
    return WrappedTrainer(functions)


class WrappedTrainer:
    """One run that is trained by somebody's own functions; see `wrap_training`."""

    size = 1

    def __init__(self, functions: Mapping[str, Callable[..., Any] | None]) -> None:
        """Keep the functions, under the names that `wrap_training` has for them."""
        self._functions = functions
        self._iteration = 0
        self._seconds = 0.0
        self._diverged = False

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start a fresh run; see `Trainer.reset`."""
        for seed in seeds:
            self._call("reset", int(seed))
            self._iteration, self._seconds, self._diverged = 0, 0.0, False

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train, one call for all updates that share a rate; see `Trainer.train`."""
        _, rates = check_chunk(iterations, learning_rate, 1)
        started = time.perf_counter()
        total = 0.0
        made = 0
        for rate, equal in groupby(rates[0].tolist()):
            updates = len(list(equal))
            # Whoever watches every update gets every update.
            sizes = [updates] if on_iteration is None else [1] * updates
            for size in sizes:
                if self._diverged:
                    break
                self._call("set_learning_rate", rate)
                loss = float(self._call("train", size))
                self._diverged = not np.isfinite(loss)
                total += loss * size
                made += size
                if on_iteration is not None:
                    on_iteration()
        self._iteration += rates.shape[1]
        self._seconds += time.perf_counter() - started
        return np.array([total / made if made else np.nan])

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss, (1,); see `Trainer.evaluate`.

        Raises:
            ValueError: It is below 0, where the reward would have no bound.
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
        """Copy the run's state; see `Trainer.snapshot`.

        Raises:
            NotImplementedError: There is no `get_state`.
        """
        return {
            "state": copy.deepcopy(self._call("get_state")),
            "iteration": self._iteration,
            "diverged": self._diverged,
        }

    def restore(
        self, members: Sequence[int], state: Mapping[str, Any], *, rewind: bool = True
    ) -> None:
        """Put a snapshot back; see `Trainer.restore`.

        Raises:
            NotImplementedError: There is no `set_state`.
        """
        self._call("set_state", copy.deepcopy(state["state"]))
        self._diverged = bool(state["diverged"])
        if rewind:
            self._iteration = int(state["iteration"])

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return (1,) arrays; ``tokens`` counts updates."""
        own = {"tokens": float(self._iteration), "seconds": self._seconds}
        given = self._functions["telemetry"]
        enough = names is not None and own.keys() >= set(names)
        found = {} if given is None or enough else given()
        return {name: np.array([value]) for name, value in {**found, **own}.items()}

    def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - theirs
        function = self._functions[name]
        if function is None:
            raise NotImplementedError(
                f"going back needs {name}, which wrap_training was not given"
            )
        return function(*arguments)
