"""Run the measurements that need a GPU and have no committed result yet.

    python benchmarks/speed/gpu_queue.py --budget 540 --out FOLDER
    python benchmarks/speed/gpu_queue.py --out FOLDER --parts correct speed
    python benchmarks/speed/gpu_queue.py --out FOLDER --dry-run   # small, on a CPU

The most important part runs first. Each part writes `FOLDER/<part>.json`. A part
consists of sub-runs. Its file is written after every sub-run, and is ``complete`` once
it has all of them. A sub-run starts only if its expected seconds are left. They are
scaled by the measured seconds of the part's finished sub-runs. The same command
continues from FOLDER, or from a committed file in `benchmarks/results/gpu`. Errors are
recorded with their traceback; the next call runs these sub-runs again.

Needs torch, numpy, gymnasium, safetensors and pooch. lr-gym need not be installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This script runs from a checkout that is not installed: find its packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from benchmarks.speed.gpu import (
    correct,
    episode,
    law,
    paper,
    populations,
    profiles,
    session,
    speed,
    widths,
)
from benchmarks.speed.gpu.session import PartFile, Session, SubRun
from benchmarks.speed.timing import CannotRun, real_text_or_markov, say
from benchmarks.table_text import markdown
from lr_gym import load_corpus
from lr_gym.devices import resolve_device
from lr_gym.files import only_process, user_path


class Part(Protocol):
    """A module of `benchmarks.speed.gpu`."""

    def plan(self, session: Session) -> list[SubRun]:
        """Return the sub-runs, the most important first."""

    def headline(self, runs: Mapping[str, Any]) -> str:
        """Return the main result of finished sub-runs, in one line."""


PARTS: dict[str, Part] = {
    "correct": correct,
    "speed": speed,
    "episode": episode,
    "paper": paper,
    "populations": populations,
    "profiles": profiles,
    "widths": widths,
    "law": law,
}


@dataclass(frozen=True)
class Args:
    """The command line."""

    budget: float
    out: Path
    parts: tuple[str, ...]
    dry_run: bool
    committed: Path | None


def parse(arguments: Sequence[str] | None = None) -> Args:
    """Return the command line as `Args`; exit with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--budget", type=float, default=540.0, help="seconds, default 540"
    )
    parser.add_argument(
        "--out", type=user_path, required=True, help="folder of the files"
    )
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], help="default: all")
    parser.add_argument(
        "--dry-run", action="store_true", help="the same code in small, on a CPU"
    )
    parser.add_argument(
        "--committed",
        type=user_path,
        help="folder of finished results; default benchmarks/results/gpu, in a dry run "
        "none",
    )
    options = parser.parse_args(arguments)
    committed = options.committed or (None if options.dry_run else session.COMMITTED)
    parts = tuple(options.parts or PARTS)
    return Args(options.budget, options.out, parts, options.dry_run, committed)


def main(args: Args) -> int:
    """Run unfinished sub-runs; print a table; return 1 if one failed, else 0."""
    deadline = time.monotonic() + args.budget
    rows = []
    failures = 0
    with (
        only_process(args.out / ".running"),
        tempfile.TemporaryDirectory(prefix="lr_gym_gpu_") as folder,
    ):
        queue_session = start(args, Path(folder), deadline)
        files = {
            name: PartFile(args.out / f"{name}.json", args.committed, args.dry_run)
            for name in PARTS
        }
        for name in args.parts:
            file, started = files[name], time.monotonic()
            queue_session.long_compile = long_compile(queue_session, files["correct"])
            planned = run_part(name, file, queue_session)
            failures += len(file.failures)
            rows.append(row(name, file, planned, time.monotonic() - started))
    print(markdown(rows))
    return 1 if failures else 0


def start(args: Args, folder: Path, deadline: float) -> Session:
    """Return the session.

    Raises:
        CannotRun: The text is missing, or a GPU, and this is not a dry run.
    """
    if not args.dry_run and not torch.cuda.is_available():
        raise CannotRun("no CUDA device; --dry-run tries everything on a CPU")
    if args.dry_run:
        torch.set_num_threads(1)  # more threads slow models of this size
    else:  # a cold start must not find the compilations of an earlier call
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")
    try:
        corpus = load_corpus(real_text_or_markov() if args.dry_run else "shakespeare")
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise CannotRun(f"LR_GYM_DATA must have the text: {error}") from error
    settings = dict(session.DRY_RUN_SETTINGS) if args.dry_run else {"device": "cuda"}
    return Session(
        device=resolve_device(settings["device"]),
        corpus=corpus,
        settings=settings,
        deadline=deadline,
        dry_run=args.dry_run,
        folder=folder,
    )


def long_compile(current: Session, correct_file: PartFile) -> str:
    """Return the compile mode of long runs.

    It is ``graph`` if checks of CUDA graphs have passed and none has failed, else
    ``default``.
    """
    if current.device.type != "cuda":
        return "off"
    tried = any("graph" in name for name in correct_file.content["runs"])
    failed = any("graph" in name for name in correct_file.failures)
    return "graph" if tried and not failed else "default"


def run_part(name: str, file: PartFile, current: Session) -> int:
    """Run the unfinished sub-runs of a part; return its number of sub-runs, or 0."""
    if file.complete:
        return len(file.content["runs"])
    planning = SubRun("plan", 0.0, dict)
    try:
        subs = PARTS[name].plan(current)
    except Exception:  # noqa: BLE001 - recorded
        file.record(planning, 0.0, traceback.format_exc(), {"plan"})
        return 0
    file.content["errors"].pop("plan", None)
    names = {sub.name for sub in subs}
    for sub in subs:
        expected = sub.seconds * file.pace()
        if file.finished(sub.name) or current.seconds_left() < expected:
            continue
        say(f"{name}: {sub.name} ({current.seconds_left():.0f} s left)")
        started = time.monotonic()
        result: dict[str, Any] | str
        try:
            result = sub.run()
        except Exception:  # noqa: BLE001 - recorded
            result = traceback.format_exc()
        file.record(sub, time.monotonic() - started, result, names)
        current.free_memory()
    return len(subs)


def row(name: str, file: PartFile, planned: int, seconds: float) -> dict[str, str]:
    """Return the row of a part in the printed table."""
    runs = {n: r for n, r in file.content["runs"].items() if file.finished(n)}
    state = f"partly ({len(runs)} of {planned or '?'})" if runs else "left"
    if file.complete:
        state = "done"
    try:
        headline = PARTS[name].headline(runs) if runs else ""
    except (KeyError, TypeError, ValueError) as error:  # a file of another version
        headline = f"no headline: {error!r}"
    if file.failures:
        headline = f"FAILED: {', '.join(file.failures)}. {headline}"
    return {
        "part": name,
        "state": state,
        "seconds": f"{seconds:.0f}",
        "result": headline,
    }


if __name__ == "__main__":
    try:
        sys.exit(main(parse()))
    except CannotRun as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
