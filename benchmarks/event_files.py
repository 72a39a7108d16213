"""Test runs as TensorBoard's event files: one run folder per method, task and seed.

A module called tensorboard.py would hide the library from the scripts in this folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TAGS = {
    "charts/val_loss": "val_loss",
    "charts/train_loss": "train_loss",
    "charts/learning_rate": "optimizer_lr",
}


def write_curves(
    folder: Path, tested: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
) -> None:
    """Write the curves of all test runs; replace those of an earlier call.

    Args:
        folder: For ``tensorboard --logdir``; a run is ``label/task/seed-N`` below it.
        tested: Test runs by label and task, of `tested_runs`.

    Raises:
        ImportError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "curves for TensorBoard need it: pip install 'lr-gym[tensorboard]'"
        ) from error
    for label, tasks in tested.items():
        for task, runs in tasks.items():
            for run in runs:
                run_folder = (
                    folder / _plain(label) / _plain(task) / f"seed-{run['seed']}"
                )
                for old in run_folder.glob("events.out.tfevents.*"):
                    old.unlink()
                with SummaryWriter(str(run_folder)) as writer:
                    for tag, key in TAGS.items():
                        for iteration, value in _points(run["curves"], key):
                            writer.add_scalar(tag, value, iteration)


def _points(curves: Mapping[str, Any], key: str) -> list[tuple[int, float]]:
    """Return iterations and values; only the loss has a value at the reset."""
    values = curves[key]
    return list(zip(curves["iteration"][-len(values) :], values, strict=True))


def _plain(name: str) -> str:
    """Return `name` as one part of a path."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
