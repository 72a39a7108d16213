"""Running jobs: in this process, in several, or on a Ray cluster.

A job gives the same numbers wherever it runs: on a CPU always on one thread. What is
finished is a file, written whole by this process alone; what is lost with a worker is
run again; and whoever starts the same command anew finds all finished jobs.
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

ATTEMPTS = 3  # a worker may die under a job this often, less one
Plan = Callable[[dict[str, dict[str, Any]]], list[Job]]


class Executor(Protocol):
    """Whoever takes jobs, as many at a time as its size."""

    size: int

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Start a job."""

    def close(self, *, failed: bool) -> None:
        """Take no more jobs."""


class SerialExecutor:
    """This process, one job at a time."""

    size = 1

    def close(self, *, failed: bool) -> None:
        """Nothing to end."""

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Run the job now."""
        future: Future[dict[str, Any]] = Future()
        with one_thread():
            future.set_result(run_job(job))
        return future


class ProcessExecutor:
    """Worker processes of this machine, one thread each."""

    def __init__(self, size: int) -> None:
        """Start `size` workers when the first job comes."""
        self.size = size
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.size,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_end_with_parent,
        )

    def close(self, *, failed: bool) -> None:
        """End the workers, after a failure in the middle of their jobs."""
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
    """A Ray cluster; on GPUs, several populations share one by `gpus` below 1."""

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
        # A lost worker or node: Ray itself runs the job again, elsewhere.
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=ATTEMPTS - 1)(
            _run_on_one_thread
        )
        free = ray.cluster_resources()
        counts = [free.get("CPU", 1.0) / cpus]
        if gpus:
            counts.append(free.get("GPU", 0.0) / gpus)
        self.size = max(1, int(min(counts)))

    def close(self, *, failed: bool) -> None:
        """Leave the cluster, or end it where it was started here."""
        if self._owned:
            self._ray.shutdown()

    def submit(self, job: Job) -> Future[dict[str, Any]]:
        """Give the job to the cluster."""
        future: Future[dict[str, Any]] = self._task.remote(job).future()
        return future


def run_all(plan: Plan, folder: Path, pool: Executor) -> dict[str, dict[str, Any]]:
    """Run every job that `plan` names, and those it names once these are done.

    Args:
        plan: From the finished records, by `Job.file_name`, all jobs known so far.
        folder: Where the records are, and go.
        pool: Who runs the jobs; closed in the end.

    Returns:
        The record of every job, by `Job.file_name`.

    Raises:
        ValueError: A file in `folder` is damaged or holds another job.
        RuntimeError: Workers died under the same job `ATTEMPTS` times.
    """
    failed = True
    try:
        with tqdm(unit="job") as bar:
            done = _run_all(plan, folder, pool, bar)
        failed = False
        return done
    finally:
        pool.close(failed=failed)


def _run_all(
    plan: Plan, folder: Path, pool: Executor, bar: tqdm[NoReturn]
) -> dict[str, dict[str, Any]]:
    done: dict[str, dict[str, Any]] = {}
    attempts: dict[str, int] = {}
    flying: dict[Future[dict[str, Any]], Job] = {}
    while True:
        jobs = _read_finished(plan, folder, done)
        bar.total = len(jobs)
        bar.update(sum(job.file_name in done for job in jobs) - bar.n)
        taken = {job.file_name for job in flying.values()} | done.keys()
        waiting = [job for job in jobs if job.file_name not in taken]
        for job in waiting[: pool.size - len(flying)]:
            bar.set_description(f"{job.method} {job.phase} on {job.env}")
            flying[pool.submit(job)] = job
        if not flying:  # in the plan's order, whoever was first
            return {job.file_name: done[job.file_name] for job in jobs}
        for future in wait(flying, return_when=FIRST_COMPLETED).done:
            job = flying.pop(future)
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
    """Read finished records while that makes more jobs known; return all jobs."""
    while True:
        jobs = plan(done)
        found = {
            job.file_name: record
            for job in jobs
            if job.file_name not in done
            and (record := load_record(folder / job.file_name, job)) is not None
        }
        if not found:
            return jobs
        done.update(found)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: results then do not depend on who else computes."""
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
    """End this worker when its parent is gone, however that died."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
