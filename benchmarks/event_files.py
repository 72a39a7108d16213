"""Test runs as TensorBoard's event files: one run folder per method, task and seed.

A module called tensorboard.py would hide the library from the scripts in this folder.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lr_gym.files import write_bytes

TAGS = {
    "charts/val_loss": "val_loss",
    "charts/train_loss": "train_loss",
    "charts/learning_rate": "optimizer_lr",
}
FILE_NAME = "events.out.tfevents.lr_gym"  # TensorBoard reads names with "tfevents"


def write_curves(
    folder: Path, tested: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
) -> None:
    """Write the curves of all test runs; replace those of an earlier call.

    Args:
        folder: For ``tensorboard --logdir``; a run is ``label/task/seed-N`` below it.
        tested: Test runs by label and task, of `tested_runs`.

    Raises:
        ImportError: TensorBoard is not installed.
        OSError: A file cannot be written.
    """
    try:
        import tensorboard  # noqa: F401
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
                write_bytes(run_folder / FILE_NAME, event_file(run["curves"]))
                for old in run_folder.glob("events.out.tfevents.*"):
                    if old.name != FILE_NAME:  # of an earlier version
                        old.unlink()


def event_file(curves: Mapping[str, Any]) -> bytes:
    """Return the event file of one run.

    TensorBoard's own writer writes in a thread: where the disk is full, it leaves half
    a file.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    records = RecordWriter(content)
    now = time.time()
    events = [Event(wall_time=now, file_version="brain.Event:2")]
    for tag, key in TAGS.items():
        for iteration, value in _points(curves, key):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            events.append(Event(wall_time=now, step=iteration, summary=summary))
    for event in events:
        records.write(event.SerializeToString())
    return content.getvalue()


def _points(curves: Mapping[str, Any], key: str) -> list[tuple[int, float]]:
    """Return iterations and values; only the loss has a value at the reset."""
    values = curves[key]
    return list(zip(curves["iteration"][-len(values) :], values, strict=True))


def _plain(name: str) -> str:
    """Return `name` as one part of a path."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
