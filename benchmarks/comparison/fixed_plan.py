"""Run a fixed list of jobs, with the options of `compare_agents.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from agents.command_line import one_line_errors
from benchmarks.comparison import entry
from benchmarks.comparison.executors import Executor, LostWorkersError, run_all
from benchmarks.comparison.jobs import Job
from benchmarks.comparison.protocol import Task
from lr_gym.validation import check_count


class Options(Protocol):
    """The arguments that all such scripts have."""

    scale: Literal["auto", "paper", "mini", "tiny"]
    settings: str
    workers: int | None
    ray: str | None
    gpus: float
    fresh: bool


def make_tasks(
    options: Options, envs: Sequence[str], methods: Sequence[str]
) -> list[Task]:
    """Return a task per corpus; every method's settings are tried on the first.

    Raises:
        ValueError: An argument is wrong; the message names it.
        FileNotFoundError: A corpus is absent.
    """
    return entry.make_tasks(_shared(options, *envs), tuple(methods))


def run_plan(
    jobs: Sequence[Job], folder: Path, options: Options
) -> dict[str, dict[str, Any]]:
    """Run the jobs missing in `folder`; return all records by `Job.file_name`."""
    device = str(jobs[0].settings.get("device", "auto"))
    folder.mkdir(parents=True, exist_ok=True)
    executor = make_executor(options, device)
    return run_all(lambda _: list(jobs), folder, executor, fresh=options.fresh)


def make_executor(options: Options, device: str) -> Executor:
    """Return the executor that the options ask for."""
    return entry.make_executor(_shared(options), device)


@contextmanager
def one_line_job_errors() -> Iterator[None]:
    """End a script of jobs in one line: for its user's errors, or if interrupted."""
    try:
        with one_line_errors():
            yield
    except LostWorkersError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(
            "interrupted: finished jobs are kept, and the same command continues"
        ) from None


def check_counts(options: Options, *names: str) -> None:
    """Raise ValueError unless the options `names` are from 1 to `MAX_COUNT`."""
    for name in names:
        value = getattr(options, name)
        if value is not None:
            check_count(f"--{name}", value, entry.MAX_COUNT)


def _shared(options: Options, *envs: str) -> entry.Args:
    return entry.Args(
        env=envs,
        scale=options.scale,
        settings=options.settings,
        workers=options.workers,
        ray=options.ray,
        gpus=options.gpus,
    )
