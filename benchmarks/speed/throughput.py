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
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from benchmarks.speed import scale_suite
from benchmarks.speed.timing import CannotRun
from lr_gym.config import SCALES

_ON = {"action": "store_true"}


@dataclass(frozen=True)
class Args:
    """Time training, evaluation and the environment; `metadata` is argparse's."""

    scale: str = field(
        default="mini", metadata={"help": "size of the model", "choices": SCALES}
    )
    sizes: tuple[int, ...] | None = field(
        default=None,
        metadata={
            "help": "population sizes E; default 1 2 4 8 16",
            "type": int,
            "nargs": "+",
        },
    )
    repeats: int | None = field(
        default=None,
        metadata={"help": "timed slices per variant; default 7", "type": int},
    )
    iterations: int | None = field(
        default=None,
        metadata={
            "help": "updates per member in a slice; default by scale",
            "type": int,
        },
    )
    step_size: int | None = field(
        default=None,
        metadata={
            "help": "E of the comparison of whole steps, 0 leaves it out; default 8",
            "type": int,
        },
    )
    compile: bool = field(
        default=False, metadata={"help": "also compiled populations", **_ON}
    )
    full: bool = field(
        default=False,
        metadata={"help": "run the plain loop's whole episode, not a part", **_ON},
    )
    device: str = field(
        default="auto", metadata={"help": "a torch device; auto prefers CUDA"}
    )
    threads: int | None = field(
        default=None,
        metadata={"help": "torch's threads; default: plain's faster", "type": int},
    )
    out: Path = field(
        default=Path("benchmarks/results/speed/throughput"),
        metadata={"help": "output folder", "type": Path},
    )
    quick: bool = field(
        default=False, metadata={"help": "a smoke run: its numbers mean nothing", **_ON}
    )


# argparse instead of tyro: the script runs where only torch is installed.
def parse(arguments: Sequence[str] | None = None) -> Args:
    """Return the command line as `Args`; exit with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for entry in fields(Args):
        flag = f"--{entry.name.replace('_', '-')}"
        parser.add_argument(flag, default=entry.default, **entry.metadata)
    given = vars(parser.parse_args(arguments))
    for name, least in (
        ("sizes", 1),
        ("repeats", 2),  # one sample has no standard deviation
        ("iterations", 1),
        ("step_size", 0),
        ("threads", 1),
    ):
        value = given[name]
        if value is not None and min(value if name == "sizes" else [value]) < least:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} must be at least {least}, got {value}")
    if given["sizes"] is not None:
        given["sizes"] = tuple(given["sizes"])
    return Args(**given)


def make_plan(args: Args) -> scale_suite.Plan:
    """Return the plan of one scale."""
    plan = scale_suite.QUICK if args.quick else scale_suite.Plan()
    named = ("sizes", "repeats", "iterations", "step_size")
    given = {name: getattr(args, name) for name in named}
    given = {name: value for name, value in given.items() if value is not None}
    return replace(
        plan,
        scale=args.scale,
        device=args.device,
        compile=args.compile,
        full=args.full,
        threads=args.threads,
        **given,
    )


def main(args: Args) -> Path:
    """Run the plan; return the path of the JSON file."""
    with tempfile.TemporaryDirectory(prefix="lr_gym_throughput_") as folder:
        try:
            return scale_suite.run(make_plan(args), args.out, Path(folder))
        except CannotRun as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None


if __name__ == "__main__":
    main(parse())
