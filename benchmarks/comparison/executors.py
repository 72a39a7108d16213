"""Run jobs in this process, in several, or on a Ray cluster.

A job gives the same numbers everywhere: on a CPU it always uses one thread. Every
finished job is a file, written atomically by this process. A job that is lost with its
worker runs again. The same command, started again, continues with the missing jobs.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from tqdm import tqdm

from benchmarks.comparison.jobs import Job, load_record, run_job, save_record

ATTEMPTS = 3  # a job fails when this many workers have died running it
Plan = Callable[[dict[str, dict[str, Any]]], list[Job]]


class Executor(Protocol):
    """Runs up to `size` jobs at a time."""

    size: int

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Start a job; return the future of its record."""

    def close(self, *, failed: bool) -> None:
        """Release all workers; `failed` means that jobs may still be running."""


class SerialExecutor:
    """Runs jobs in this process, one at a time."""

    size = 1

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
        # Ray itself repeats a job when its worker or node is lost.
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=ATTEMPTS - 1)(
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


def run_all(plan: Plan, folder: Path, executor: Executor) -> dict[str, dict[str, Any]]:
    """Run all jobs of `plan`, which can add jobs when others are done.

    Args:
        plan: Takes the finished records by `Job.file_name`; returns all jobs that can
            be named by then.
        folder: Folder of the records.
        executor: Runs the jobs; is closed at the end.

    Returns:
        The record of every job, by `Job.file_name`.

    Raises:
        ValueError: A file in `folder` is damaged or holds another job.
        RuntimeError: Workers died under the same job `ATTEMPTS` times.
    """
    failed = True
    try:
        with tqdm(unit="job") as bar:
            done = _run_all(plan, folder, executor, bar)
        failed = False
        return done
    finally:
        executor.close(failed=failed)


def _run_all(
    plan: Plan, folder: Path, executor: Executor, bar: tqdm[NoReturn]
) -> dict[str, dict[str, Any]]:
    done: dict[str, dict[str, Any]] = {}
    attempts: dict[str, int] = {}
    running: dict[Future[dict[str, Any]], Job] = {}
    while True:
        jobs = _read_finished(plan, folder, done)
        bar.total = len(jobs)
        bar.update(sum(job.file_name in done for job in jobs) - bar.n)
        started = {job.file_name for job in running.values()} | done.keys()
        waiting = [job for job in jobs if job.file_name not in started]
        for job in waiting[: executor.size - len(running)]:
            bar.set_description(f"{job.method} {job.phase} on {job.env}")
            running[executor.submit(job)] = job
        if not running:  # the plan's order, not that of completion
            return {job.file_name: done[job.file_name] for job in jobs}
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            try:
                save_record(folder / job.file_name, future.result())
            except BrokenProcessPool as error:
                failures = attempts[job.file_name] = attempts.get(job.file_name, 0) + 1
                if failures == ATTEMPTS:
                    raise RuntimeError(
                        f"{ATTEMPTS} workers died running {job.file_name}"
                    ) from error


def _read_finished(
    plan: Plan, folder: Path, done: dict[str, dict[str, Any]]
) -> list[Job]:
    """Read finished records into `done` until the plan adds no job; return all jobs."""
    while True:
        jobs = plan(done)
        finished = {
            job.file_name: record
            for job in jobs
            if job.file_name not in done
            and (record := load_record(folder / job.file_name, job)) is not None
        }
        if not finished:
            return jobs
        done.update(finished)


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
