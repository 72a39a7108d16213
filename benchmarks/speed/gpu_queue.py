"""Measure what needs a GPU and has no committed result yet.

    python benchmarks/speed/gpu_queue.py --budget 540 --out FOLDER
    python benchmarks/speed/gpu_queue.py --out FOLDER --parts correct speed
    python benchmarks/speed/gpu_queue.py --out FOLDER --dry-run   # small, on a CPU

Parts run in the order of their importance, each into `FOLDER/<part>.json`. A part
consists of sub-runs. Its file is written after each of them, and is ``complete`` once
all are there. A sub-run starts only if its expected seconds are left; the expectation
is scaled by what the part's finished sub-runs took. The same command goes on where the
last one stopped: from FOLDER, or from a committed file in `benchmarks/results/gpu`.
Errors are recorded with their traceback, and are tried again the next time.

Needs torch, numpy, gymnasium, safetensors and pooch, and no installation.
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
    session,
    speed,
    widths,
)
from benchmarks.speed.gpu.session import PartFile, Session, SubRun
from benchmarks.speed.timing import CannotRun, real_text_or_markov, say
from benchmarks.table_text import markdown
from lr_gym import load_corpus
from lr_gym.devices import resolve_device


class Part(Protocol):
    """A module of `benchmarks.speed.gpu`."""

    def plan(self, session: Session) -> list[SubRun]:
        """Return the sub-runs, the most important first."""

    def headline(self, runs: Mapping[str, Any]) -> str:
        """Return what finished sub-runs say, in a line."""


PARTS: dict[str, Part] = {
    "correct": correct,
    "speed": speed,
    "episode": episode,
    "paper": paper,
    "populations": populations,
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
    """Return the command line as `Args`; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--budget", type=float, default=540.0, help="seconds, default 540"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], help="default: all")
    parser.add_argument(
        "--dry-run", action="store_true", help="the same code, small, on a CPU"
    )
    parser.add_argument(
        "--committed",
        type=Path,
        help="folder of finished results; default benchmarks/results/gpu, none in a "
        "dry run",
    )
    given = parser.parse_args(arguments)
    committed = given.committed or (None if given.dry_run else session.RESULTS)
    parts = tuple(given.parts or PARTS)
    return Args(given.budget, given.out, parts, given.dry_run, committed)


def main(args: Args) -> int:
    """Run what is missing; print a table; return 1 if something failed, else 0."""
    deadline = time.monotonic() + args.budget
    rows = []
    failures = 0
    with tempfile.TemporaryDirectory(prefix="lr_gym_gpu_") as folder:
        ours = start(args, Path(folder), deadline)
        files = {
            name: PartFile(args.out / f"{name}.json", args.committed, args.dry_run)
            for name in PARTS
        }
        for name in args.parts:
            file, started = files[name], time.monotonic()
            ours.long_compile = long_compile(ours, files["correct"])
            planned = run_part(name, file, ours)
            failures += len(file.failures)
            rows.append(row(name, file, planned, time.monotonic() - started))
    print(markdown(rows))
    return 1 if failures else 0


def start(args: Args, folder: Path, deadline: float) -> Session:
    """Return the session.

    Raises:
        CannotRun: There is no GPU and this is no dry run, or the text is missing.
    """
    if not args.dry_run and not torch.cuda.is_available():
        raise CannotRun("no CUDA device; --dry-run tries everything on a CPU")
    if args.dry_run:
        torch.set_num_threads(1)  # for models so small a second thread only waits
    else:  # what an earlier call has compiled must not make a cold start warm
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")
    try:
        corpus = load_corpus(real_text_or_markov() if args.dry_run else "shakespeare")
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise CannotRun(f"LR_GYM_DATA must have the text: {error}") from error
    settings = dict(session.SMALL) if args.dry_run else {"device": "cuda"}
    return Session(
        device=resolve_device(settings["device"]),
        corpus=corpus,
        settings=settings,
        deadline=deadline,
        dry_run=args.dry_run,
        folder=folder,
    )


def long_compile(ours: Session, correct_file: PartFile) -> str:
    """Return how to compile long runs: by CUDA graphs once these are known to be right.

    Until then, and where a check of them failed, long runs use ``default``.
    """
    if ours.device.type != "cuda":
        return "off"
    tried = any("graph" in name for name in correct_file.content["runs"])
    failed = any("graph" in name for name in correct_file.failures)
    return "graph" if tried and not failed else "default"


def run_part(name: str, file: PartFile, ours: Session) -> int:
    """Run what a part still lacks; return how many sub-runs it has, 0 if unknown."""
    if file.complete:
        return len(file.content["runs"])
    planning = SubRun("plan", 0.0, dict)
    try:
        subs = PARTS[name].plan(ours)
    except Exception:  # noqa: BLE001 - recorded
        file.record(planning, 0.0, traceback.format_exc(), {"plan"})
        return 0
    file.content["errors"].pop("plan", None)
    names = {sub.name for sub in subs}
    for sub in subs:
        expected = sub.seconds * file.pace()
        if file.finished(sub.name) or ours.seconds_left() < expected:
            continue
        say(f"{name}: {sub.name} ({ours.seconds_left():.0f} s left)")
        started = time.monotonic()
        result: dict[str, Any] | str
        try:
            result = sub.run()
        except Exception:  # noqa: BLE001 - recorded
            result = traceback.format_exc()
        file.record(sub, time.monotonic() - started, result, names)
        ours.free_memory()
    return len(subs)


def row(name: str, file: PartFile, planned: int, seconds: float) -> dict[str, str]:
    """Return a part's line of the printed table."""
    runs = {n: r for n, r in file.content["runs"].items() if file.finished(n)}
    state = f"partly ({len(runs)} of {planned or '?'})" if runs else "left"
    if file.complete:
        state = "done"
    try:
        headline = PARTS[name].headline(runs) if runs else ""
    except (KeyError, TypeError, ValueError) as error:  # of a file of another version
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
