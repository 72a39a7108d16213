"""Recorded training runs, which a law is fitted to, and their file format."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from lr_gym.files import ARCHIVE_ERRORS, user_path, write_bytes

FloatArray = NDArray[np.float64]

CURVES = ("val_loss", "train_loss", "grad_norm", "update_size")
UNDONE = "undone"


def _nothing() -> FloatArray:
    return np.empty(0)  # becomes NaN at every evaluation


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """The learning rates and measurements of one training run.

    A log of losses and learning rates is enough; the other measurements are for the
    simulator.

    Attributes:
        name: Name in reports.
        seed: Seed of the run.
        rates: Learning rate of every iteration, (n,).
        iterations: Iterations spent at each evaluation, increasing, 3 or more, (m,).
        val_loss: Validation loss, (m,); NaN after divergence.
        train_loss: Mean over the iterations since the previous evaluation, (m,); NaN at
            the first evaluation.
        grad_norm: Mean gradient norm over the same iterations, (m,).
        update_size: Size of one update, see `lr_gym.trainers.update_size`, (m,).
        undone: Whether the chunk before the previous evaluation was undone, (m,) bool:
            weights and optimizer were restored to their state before it. `None` is
            never.

    Raises:
        ValueError: Shapes do not fit, or a rate or iteration is out of range.
    """

    name: str
    seed: int = 0
    rates: FloatArray
    iterations: NDArray[np.int64]
    val_loss: FloatArray
    train_loss: FloatArray = field(default_factory=_nothing)
    grad_norm: FloatArray = field(default_factory=_nothing)
    update_size: FloatArray = field(default_factory=_nothing)
    undone: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        points = np.asarray(self.iterations)
        if points.ndim != 1 or len(points) < 3 or points[0] < 0:
            raise ValueError(f"iterations must be 3 or more, from 0 on: {points}")
        if (np.diff(points) <= 0).any() or points[-1] > len(self.rates):
            raise ValueError(
                "iterations must increase and end within the rates, got "
                f"{points.tolist()} and {len(self.rates)} rates"
            )
        rates = np.asarray(self.rates)
        if rates.ndim != 1 or not (np.isfinite(rates).all() and (rates >= 0).all()):
            raise ValueError(f"rates of {self.name!r} must be finite and >= 0")
        for name in CURVES[1:]:
            if np.size(getattr(self, name)) == 0:
                object.__setattr__(self, name, np.full(len(points), np.nan))
        for name in CURVES if self.undone is None else (*CURVES, UNDONE):
            if np.shape(getattr(self, name)) != points.shape:
                raise ValueError(f"{name} of {self.name!r} must have {len(points)}")
        if not np.isfinite(self.val_loss[0]):
            raise ValueError(f"the first val_loss of {self.name!r} must be finite")


def padded(runs: Sequence[RecordedRun], name: str) -> FloatArray:
    """Return a curve or ``iterations`` of all runs, (R, m), NaN where a run ends."""
    most = max(len(run.iterations) for run in runs)
    table = np.full((len(runs), most), np.nan)
    for row, run in zip(table, runs, strict=True):
        values = getattr(run, name)
        row[: len(values)] = values
    return table


def undone_chunks(runs: Sequence[RecordedRun]) -> NDArray[np.bool_] | None:
    """Return `RecordedRun.undone` of all runs, (R, m); `None` if no run has it."""
    if all(run.undone is None for run in runs):
        return None
    most = max(len(run.iterations) for run in runs)
    undone = np.zeros((len(runs), most), dtype=np.bool_)
    for row, run in zip(undone, runs, strict=True):
        if run.undone is not None:
            row[: len(run.undone)] = run.undone
    return undone


def save_runs(path: str | os.PathLike[str], runs: Sequence[RecordedRun]) -> None:
    """Write runs to a compressed NumPy file, about half a kilobyte per run.

    Raises:
        ValueError: The runs differ in length or in the iterations of evaluations.
    """
    check_same_points(runs)
    arrays: dict[str, Any] = {
        "name": np.array([run.name for run in runs]),
        "seed": np.array([run.seed for run in runs]),
        "iterations": np.asarray(runs[0].iterations),
    }
    for name in ("rates", *CURVES):
        arrays[name] = np.stack([getattr(run, name) for run in runs]).astype(np.float32)
    undone = undone_chunks(runs)
    if undone is not None:
        arrays[UNDONE] = undone
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(path, content.getvalue())


def load_runs(path: str | os.PathLike[str]) -> list[RecordedRun]:
    """Read runs that `save_runs` wrote.

    Raises:
        OSError: The file is absent or cannot be read.
        ValueError: The file is damaged or in another format.
    """
    with user_path(path).open("rb") as file:  # raises the errors of the file itself
        try:
            arrays = _read_arrays(file)
            columns = {k: arrays[k].astype(np.float64) for k in ("rates", *CURVES)}
            if UNDONE in arrays:
                columns[UNDONE] = arrays[UNDONE].astype(np.bool_)
            return [
                RecordedRun(
                    name=str(name),
                    seed=int(arrays["seed"][row]),
                    iterations=arrays["iterations"],
                    **{k: v[row] for k, v in columns.items()},
                )
                for row, name in enumerate(arrays["name"])
            ]
        except (KeyError, IndexError, *ARCHIVE_ERRORS) as error:
            raise ValueError(f"{path} holds no recorded runs: {error}") from error


def _read_arrays(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file; raise unless their types and dimensions are right.

    Raises:
        ValueError: An array is missing, or has another type or number of dimensions.
    """
    content = np.load(file, allow_pickle=False)
    if not isinstance(content, NpzFile):
        raise ValueError("it is a single array")
    required = ("name", "seed", "iterations", "rates", *CURVES)
    for name in required:
        if name not in content.files:
            raise ValueError(f"it has no array {name!r}")
    names = [name for name in (*required, UNDONE) if name in content.files]
    arrays = {name: content[name] for name in names}
    dimensions = {"name": 1, "seed": 1, "iterations": 1}
    kinds = {"name": "U", "seed": "iu", "iterations": "iu", UNDONE: "b"}
    for name, array in arrays.items():
        if array.dtype.kind not in kinds.get(name, "f"):
            raise ValueError(f"{name} must not be an array of {array.dtype}")
        if array.ndim != dimensions.get(name, 2):
            raise ValueError(f"{name} must not have {array.ndim} dimensions")
    return arrays


def have_same_points(runs: Sequence[RecordedRun]) -> bool:
    """Return whether all runs share length and iterations of evaluations, from 0 on."""
    try:
        check_same_points(runs)
    except ValueError:
        return False
    return int(runs[0].iterations[0]) == 0


def check_same_points(runs: Sequence[RecordedRun]) -> None:
    """Raise ValueError unless all runs share length and iterations of evaluations."""
    for run in runs:
        same = np.array_equal(run.iterations, runs[0].iterations)
        if not same or len(run.rates) != len(runs[0].rates):
            raise ValueError(
                "runs must have one length and be evaluated at the same iterations: "
                f"{run.name!r} differs from {runs[0].name!r}"
            )
