"""Speed of training against plain PyTorch, and costs of an episode.

    python -m benchmarks.speed.throughput  # 20 minutes on two cores
    python -m benchmarks.speed.throughput --scale tiny --quick  # a smoke run

Variants take turns (`timing.py`). Training is compared with `plain`, a loop like
nanoGPT's (`plain_loop.py`). Whole environment steps are compared with
stable-baselines3's SubprocVecEnv. Needs only torch, numpy and gymnasium; with
``PYTHONPATH=.`` it runs from a checkout that is not installed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.speed import scale_suite
from benchmarks.speed.timing import CannotRun
from lr_gym.config import SCALES
from lr_gym.files import user_path


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of argparse: integers from `least`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return integer


# argparse instead of tyro: the script runs where only torch is installed.
OPTIONS: dict[str, dict[str, Any]] = {
    "scale": {"help": "size of the model; default mini", "choices": SCALES},
    "sizes": {
        "help": "population sizes E; default 1 2 4 8 16",
        "type": at_least(1),
        "nargs": "+",
    },
    "repeats": {"help": "timed slices per variant; default 7", "type": at_least(2)},
    "iterations": {
        "help": "updates per member in a slice; default by scale",
        "type": at_least(1),
    },
    "step_size": {
        "help": "E of the comparison of whole steps, 0 leaves it out; default 8",
        "type": at_least(0),
    },
    "compile": {"help": "also compiled populations", "action": "store_true"},
    "full": {
        "help": "run the plain loop's whole episode, not a part",
        "action": "store_true",
    },
    "device": {"help": "a torch device; default auto, which prefers CUDA"},
    "threads": {
        "help": "torch's threads; default: plain's faster",
        "type": at_least(1),
    },
}


@dataclass(frozen=True)
class Args:
    """The measurements, and the output folder."""

    plan: scale_suite.Plan
    out: Path


def parse(arguments: Sequence[str] | None = None) -> Args:
    """Return the command line as `Args`; exit with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, option in OPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, default=argparse.SUPPRESS, **option)
    parser.add_argument(
        "--out",
        help="output folder",
        type=user_path,
        default=Path("benchmarks/results/speed/throughput"),
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run, without meaningful numbers"
    )
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    base = scale_suite.QUICK if options.pop("quick") else scale_suite.Plan()
    if "sizes" in options:
        options["sizes"] = tuple(options["sizes"])
    return Args(replace(base, **options), out)


def main(args: Args) -> Path:
    """Run the plan; return the path of the JSON file."""
    with tempfile.TemporaryDirectory(prefix="lr_gym_throughput_") as folder:
        try:
            return scale_suite.run(args.plan, args.out, Path(folder))
        except CannotRun as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None


if __name__ == "__main__":
    main(parse())
