"""Run jobs in this process, in several, or on a Ray cluster.

A job gives the same numbers everywhere: on a CPU it always uses one thread. Every
finished job is a file, written atomically by this process. A job that is lost with its
worker runs again. The same command, started again, continues with the missing jobs.
A job whose agent or text has changed runs again, and its old file moves to the folder
``old``. Jobs of other code are reused only if no job is missing, or if it is said that
their code computes the same (`mixed`). A line says how many they are.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.comparison.inputs import agent_hash, code_hash, text_has_changed
from benchmarks.comparison.jobs import Job, load_record, run_job, save_record
from lr_gym.files import only_process
from lr_gym.progress import ProgressBar

ATTEMPTS = 3  # a job fails when this many workers have died running it
# The plan adds jobs as others finish, so a share or a remaining time would be wrong.
PROGRESS = "{n_fmt} jobs done, {total_fmt} planned so far, {elapsed}{postfix}"
Plan = Callable[[dict[str, dict[str, Any]]], list[Job]]


class LostWorkersError(RuntimeError):
    """Worker processes died again and again while they ran a job."""

    def __init__(self, job: Job) -> None:
        """Name the job."""
        super().__init__(
            f"{ATTEMPTS} workers died running {job.file_name}; the system kills "
            "processes when memory is short: try fewer --workers. Finished jobs are "
            "kept, and the same command continues"
        )


class Executor(Protocol):
    """Runs up to `size` jobs at a time.

    Attributes:
        size: Jobs at a time.
    """

    size: int

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """The exceptions of a job's future if its worker died."""

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Start a job; return the future of its record."""

    def close(self, *, failed: bool) -> None:
        """Release all workers; `failed` means that jobs may still be running."""


class SerialExecutor:
    """Runs jobs in this process, one at a time."""

    size = 1
    lost: tuple[type[Exception], ...] = ()

    def close(self, *, failed: bool) -> None:
        """Do nothing: there are no workers."""

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Run the job now."""
        future: Future[dict[str, Any]] = Future()
        with one_thread():
            future.set_result(run_job(job))
        return future


class ProcessExecutor:
    """Runs jobs in worker processes of this machine, one thread each."""

    lost: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, size: int) -> None:
        """Prepare `size` workers; they start with the first jobs."""
        self.size = size
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.size,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_end_with_parent,
        )

    def close(self, *, failed: bool) -> None:
        """End the workers; after a failure kill them in the middle of their jobs."""
        workers = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=not failed, cancel_futures=True)
        if failed:
            for worker in workers:
                worker.kill()

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Give the job to the next free worker; replace workers that died."""
        try:
            return self._pool.submit(_run_on_one_thread, job)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._start()
            return self._pool.submit(_run_on_one_thread, job)


class RayExecutor:
    """Runs jobs on a Ray cluster; with `gpus` below 1 several jobs share a GPU."""

    def __init__(self, address: str, cpus: float = 1.0, gpus: float = 0.0) -> None:
        """Join the cluster at `address`, or with ``local`` start one here.

        Raises:
            ImportError: The extra is missing; the message names it.
        """
        try:
            import ray
        except ImportError as error:
            raise ImportError("--ray needs ray: pip install 'lr-gym[ray]'") from error
        self._ray = ray
        self._owned = not ray.is_initialized()
        if self._owned:
            place = None if address == "local" else address
            ray.init(place, log_to_driver=False, include_dashboard=False)
        errors = ray.exceptions
        self.lost: tuple[type[Exception], ...] = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.ObjectLostError,
            errors.OutOfMemoryError,
        )
        # `run_all` repeats lost jobs, as it does on this machine.
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(
            _run_on_one_thread
        )
        free = ray.cluster_resources()
        counts = [free.get("CPU", 1.0) / cpus]
        if gpus:
            counts.append(free.get("GPU", 0.0) / gpus)
        self.size = max(1, int(min(counts)))

    def close(self, *, failed: bool) -> None:
        """End the cluster if this executor started it."""
        if self._owned:
            self._ray.shutdown()

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Give the job to the cluster."""
        future: Future[dict[str, Any]] = self._task.remote(job).future()
        return future


class JobFolder:
    """The finished jobs in a folder, and which of them are still valid.

    Attributes:
        other_code: Names of reused jobs that other code made.
        unknown_code: Names of reused jobs that do not name the code that made them.
        outdated: Names of the files that moved to ``old``.
    """

    def __init__(
        self, folder: Path, *, fresh: bool = False, mixed: bool = False
    ) -> None:
        """Read from `folder`; see `run_all`."""
        self.folder = folder
        self.fresh = fresh
        self.mixed = mixed
        self.other_code: set[str] = set()
        self.unknown_code: set[str] = set()
        self.outdated: set[str] = set()
        self._saved: set[str] = set()
        self._agent_hashes: dict[str, str | None] = {}

    def read(self, job: Job) -> dict[str, Any] | None:
        """Return the job's record, or `None` if it must run.

        Raises:
            ValueError: The file is damaged or holds another job, or an input has
                changed since this process started the job.
        """
        name = job.file_name
        record = load_record(self.folder / name, job)
        if record is None:
            return None
        code = record.get("inputs", {}).get("code")
        valid_code = code == code_hash()
        if self._inputs_changed(record, job) or (self.fresh and not valid_code):
            if name in self._saved:
                raise ValueError(
                    f"the code, the text or the agent of {job.method} on {job.env} "
                    "changed while its job ran; start again"
                )
            self._move_to_old(name)
            return None
        if not valid_code:
            (self.other_code if code else self.unknown_code).add(name)
        return record

    def save(self, job: Job, record: dict[str, Any]) -> None:
        """Write the record of a job that has just run."""
        self._saved.add(job.file_name)
        save_record(self.folder / job.file_name, record)

    def check_not_mixed(self, missing: int) -> None:
        """Raise ValueError if `missing` jobs would join jobs of other code."""
        reused = len(self.other_code | self.unknown_code)
        if missing and reused and not self.mixed:
            raise ValueError(
                f"{self.folder} has {reused} jobs that were made by other code, and at "
                f"least {missing} more must run: results of two codes are not "
                "comparable. Run all again with --fresh (old jobs move to "
                f"{self.folder / 'old'}), choose another folder, or go back to the "
                "code that made them"
            )

    def report(self) -> None:
        """Print what is reused from other code, and what was out of date."""
        lines = []
        if self.other_code:
            lines.append(
                f"{len(self.other_code)} jobs were made by other code: lr_gym or "
                "agents has changed since; run again with --fresh"
            )
        if self.unknown_code:
            lines.append(
                f"{len(self.unknown_code)} jobs do not name the code that made them, "
                "which may have changed since; run again with --fresh"
            )
        if self.outdated:
            lines.append(
                f"{len(self.outdated)} old jobs ran again, since their agent, text or "
                f"code has changed; their files are in {self.folder / 'old'}"
            )
        for line in lines:
            print(line, file=sys.stderr)

    def _inputs_changed(self, record: dict[str, Any], job: Job) -> bool:
        """Return whether the agent's files or the text differ from the record's."""
        if job.method not in self._agent_hashes:
            self._agent_hashes[job.method] = agent_hash(job.method)
        inputs = record.get("inputs")
        if inputs and inputs["agent"] != self._agent_hashes[job.method]:
            return True
        return text_has_changed(record, job.env, job.settings)

    def _move_to_old(self, name: str) -> None:
        path = self.folder / name
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
        old = self.folder / "old" / f"{path.stem}-{content}.json"
        old.parent.mkdir(exist_ok=True)
        path.replace(old)
        self.outdated.add(name)


def run_all(
    plan: Plan,
    folder: Path,
    executor: Executor,
    *,
    fresh: bool = False,
    mixed: bool = False,
) -> dict[str, dict[str, Any]]:
    """Run all jobs of `plan`, which can add jobs when others are done.

    Args:
        plan: Takes the finished records by `Job.file_name`; returns all jobs that can
            be named by then.
        folder: Folder of the records.
        executor: Runs the jobs; is closed at the end.
        fresh: Run jobs again that were made by other code.
        mixed: Run missing jobs beside finished ones of other code.

    Returns:
        The record of every job, by `Job.file_name`.

    Raises:
        ValueError: A file in `folder` is damaged or holds another job; or jobs are
            missing, and the finished ones were made by other code without `mixed`.
        BlockingIOError: Another process is running jobs in `folder`.
        LostWorkersError: Workers died under the same job `ATTEMPTS` times.
    """
    failed = True
    finished = JobFolder(folder, fresh=fresh, mixed=mixed)
    try:
        with (
            only_process(folder / ".running"),
            ProgressBar(bar_format=PROGRESS) as bar,
        ):
            done = _run_all(plan, finished, executor, bar)
        failed = False
        finished.report()
        return done
    finally:
        executor.close(failed=failed)


def _run_all(
    plan: Plan, finished: JobFolder, executor: Executor, bar: ProgressBar
) -> dict[str, dict[str, Any]]:
    done: dict[str, dict[str, Any]] = {}
    attempts: dict[str, int] = {}
    running: dict[Future[dict[str, Any]], Job] = {}
    while True:
        jobs = _read_finished(plan, finished, done)
        bar.total = len(jobs)
        bar.update(sum(job.file_name in done for job in jobs) - bar.n)
        started = {job.file_name for job in running.values()} | done.keys()
        waiting = [job for job in jobs if job.file_name not in started]
        finished.check_not_mixed(len(waiting))
        for job in waiting[: executor.size - len(running)]:
            bar.set_postfix_str(f"{job.method} {job.phase} on {job.env}")
            running[executor.submit(job)] = job
        if not running:  # the plan's order, not that of completion
            return {job.file_name: done[job.file_name] for job in jobs}
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            try:
                finished.save(job, future.result())
            except executor.lost as error:
                failures = attempts[job.file_name] = attempts.get(job.file_name, 0) + 1
                if failures == ATTEMPTS:
                    raise LostWorkersError(job) from error


def _read_finished(
    plan: Plan, finished: JobFolder, done: dict[str, dict[str, Any]]
) -> list[Job]:
    """Read finished records into `done` until the plan adds no job; return all jobs."""
    while True:
        jobs = plan(done)
        records = {
            job.file_name: record
            for job in jobs
            if job.file_name not in done and (record := finished.read(job)) is not None
        }
        if not records:
            return jobs
        done.update(records)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that results do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_on_one_thread(job: Job) -> dict[str, Any]:
    with one_thread():
        return run_job(job)


def _end_with_parent() -> None:
    """End this worker when its parent has died."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
