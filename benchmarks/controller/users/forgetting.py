"""What fine-tuning costs on the old text, under controllers and under cosine decay.

    python -m benchmarks.controller.users.forgetting

A small GPT that was trained on Shakespeare is tuned on `text8`, as in the users' task
``tune-near``. The controllers start from a tenth of the task's middle rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from agents.command_line import parse_command_line
from benchmarks.controller.users import data, loop
from benchmarks.controller.users.field_cases import (
    PEAKS,
    Case,
    Earlier,
    Today,
    value_text,
)
from benchmarks.controller.users.pilots import TUNED, MakePilot
from benchmarks.controller.users.tasks import CONTEXT, JUDGED, Training
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown

TASK = JUDGED["tune-near"]
START = 0.1  # of the middle rate, for controllers


@dataclass
class Args:
    """Tune under every method; evaluate on both texts."""

    seeds: int = 3
    """Runs of each method."""
    out: Path = Path("benchmarks/results/controller/users/forgetting.json")
    """The result file."""


def methods() -> dict[str, tuple[MakePilot, float]]:
    """Return what sets the learning rates, and the share of the middle rate."""
    case = Case(TASK)
    cosine = {f"cosine, peak {p * TASK.middle_lr:g}": p for p in PEAKS}
    return {
        **{name: (TUNED["cosine"], peak) for name, peak in cosine.items()},
        "earlier rule": (partial(Earlier, case=case), START),
        "`ControllerLR`": (partial(Today, case=case), START),
    }


def old_loss(training: Training) -> float:
    """Return the validation loss on the text before, nats per character."""
    _, held = data.text("shakespeare")
    return replace(
        training, validation=data.even_windows(held, 250, CONTEXT)
    ).evaluate()


def tune(make_pilot: MakePilot, share: float, seed: int) -> tuple[float, float, float]:
    """Return the final losses on the new and the old text, and the highest rate."""
    trainings: list[Training] = []

    def make(seed: int) -> Training:
        trainings.append(TASK.make(seed))
        return trainings[-1]

    rate = share * TASK.middle_lr
    outcome = loop.run(replace(TASK, make=make), seed, make_pilot, rate)
    return outcome.loss, old_loss(trainings[0]), max(outcome.rates)


def main(args: Args) -> dict[str, Any]:
    """Run all; print and write the means."""
    loop.one_thread()
    rows = [
        {
            "method": "before",
            "new text": TASK.make(0).evaluate(),
            "old text": old_loss(TASK.make(0)),
            "highest learning rate": 0.0,
        }
    ]
    for name, (make_pilot, share) in methods().items():
        runs = [tune(make_pilot, share, seed) for seed in range(args.seeds)]
        new, old, highest = (fmean(column) for column in zip(*runs, strict=True))
        rows.append(
            {
                "method": name,
                "new text": new,
                "old text": old,
                "highest learning rate": highest,
            }
        )
    print(markdown([{k: value_text(v) for k, v in row.items()} for row in rows]))
    return write_result(args.out, {"seeds": args.seeds, "rows": rows})


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
