"""Cases that users of the earlier controller reported, with it and with today's.

    python -m benchmarks.controller.users.field_cases

The earlier controller is `PolicyLR` with the rule `update_size`, which decides at
evaluations. Today's gets the same evaluations, and undoes too. Beside them: the best of
five learning rates left alone. Needs scikit-learn and peft.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from torch import nn
from torch.optim import AdamW, Optimizer

from agents.command_line import parse_command_line
from benchmarks.controller.users import loop, models
from benchmarks.controller.users.pilots import MakePilot, Pilot
from benchmarks.controller.users.tasks import (
    CHOOSING,
    Training,
    UserTask,
    classification,
    language,
    regression,
)
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown
from lr_gym.controllers import ControllerLR, PolicyLR

Seen = Callable[[int, float], float]  # number of the evaluation, loss: what is shown
PEAKS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the task's middle rate
METHODS = ("earlier", "today", "left alone")


@dataclass
class Args:
    """Train every case with both controllers and at constant learning rates."""

    seeds: int = 3
    """Runs of each case."""
    workers: int = os.cpu_count() or 1
    """Processes, each with one thread."""
    out: Path = Path("benchmarks/results/controller/users/field_cases.json")
    """The result file."""


def as_it_is(number: int, loss: float) -> float:
    """Show the loss itself."""
    return loss


def one_too_low(number: int, loss: float) -> float:
    """Show the twentieth evaluation too low, by 0.15."""
    return loss - 0.15 if number == 20 else loss


def noisy(number: int, loss: float) -> float:
    """Add noise of standard deviation 0.1, the same in every run."""
    return loss + 0.1 * float(np.random.default_rng(number).normal())


@dataclass(frozen=True)
class Case:
    """A row: a task, the share of its middle rate to start from, and what is shown."""

    task: UserTask
    share: float = 1.0
    seen: Seen = as_it_is


class Earlier(Pilot):
    """`PolicyLR` with the update-size rule, by its documentation."""

    evaluates = True

    def __init__(
        self, training: Training, lr: float, iterations: int, *, case: Case
    ) -> None:
        """See `Pilot`."""
        super().__init__(training, lr, iterations)
        interval = max(1, iterations // case.task.evaluations)
        self._case, self._number = case, 0
        self._schedulers = [
            PolicyLR(
                optimizer,
                interval=interval,
                max_iters=iterations,
                undo=training.model,
                min_lr=1e-12,
            )
            for optimizer in self.optimizers
        ]

    def evaluated(self, loss: float) -> None:
        """Decide."""
        shown = self._case.seen(self._number, loss)
        self._number += 1
        for scheduler in self._schedulers:
            if scheduler.needs_evaluation:
                scheduler.step(shown)


class Today(Pilot):
    """`ControllerLR`, with the same evaluations."""

    def __init__(
        self, training: Training, lr: float, iterations: int, *, case: Case
    ) -> None:
        """See `Pilot`."""
        super().__init__(training, lr, iterations)
        self.evaluates = case.task.evaluations > 0
        self._case, self._number = case, 0
        self._controllers = [
            ControllerLR(optimizer, iterations, undo=training.model)
            for optimizer in self.optimizers
        ]

    def evaluated(self, loss: float) -> None:
        """Look for damage."""
        shown = self._case.seen(self._number, loss)
        self._number += 1
        for controller in self._controllers:
            controller.step(shown)


def _times(factor: float, seed: int) -> Training:
    """Return the regression with its loss multiplied."""
    training = regression(seed, 1.0)
    return replace(
        training, loss=lambda model, batch: factor * training.loss(model, batch)
    )


def _zero_head() -> nn.Module:
    model = models.mlp(64, 10)
    nn.init.zeros_(model.get_parameter("4.weight"))
    return model


def _slow_backbone(model: nn.Module, learning_rate: float) -> list[Optimizer]:
    head = [*list(model.children())[-1].parameters()]
    ids = set(map(id, head))
    rest = [p for p in model.parameters() if id(p) not in ids]
    groups = [
        {"params": rest, "lr": learning_rate / 100.0},
        {"params": head, "lr": learning_rate},
    ]
    return [AdamW(groups)]


_mlp = partial(models.mlp, 64, 10)
DIGITS = UserTask("digits", 600, 8e-3, partial(classification, _mlp))
HEADS = replace(DIGITS, iterations=400)
SINES = replace(CHOOSING["sines-100"], make=partial(regression, unit=1.0))
CODE = UserTask(
    "code",
    300,
    3e-3,
    partial(
        language, partial(models.GPT, 96, 4), "javascript.txt", batch_size=8
    ),
    evaluations=60,
)  # fmt: skip
CASES = {
    **{
        f"perceptron, {count} evaluations": Case(
            replace(DIGITS, evaluations=count), 1 / 8
        )
        for count in (3, 5, 10, 20, 60)
    },
    "perceptron, zero-initialized head": Case(
        replace(HEADS, make=partial(classification, _zero_head)), 1 / 8
    ),
    "perceptron, backbone at a hundredth": Case(
        replace(
            HEADS, make=partial(classification, _mlp, make_optimizers=_slow_backbone)
        )
    ),
    "GPT 4x96 on source code, decisions every 5 updates": Case(CODE),
    "regression": Case(SINES),
    "regression, times 100": Case(replace(SINES, make=partial(_times, 100.0))),
    "regression, times 0.001": Case(replace(SINES, make=partial(_times, 1e-3))),
    "regression, one evaluation too low": Case(SINES, seen=one_too_low),
    "regression, noisy evaluations": Case(SINES, seen=noisy),
}


def final_loss(name: str, method: str, share: float, seed: int) -> float:
    """Run a case; return its final validation loss, inf if it diverges."""
    loop.one_thread()
    case = CASES[name]
    make: MakePilot = Pilot
    if method != "left alone":
        make = partial(Earlier if method == "earlier" else Today, case=case)
    return loop.run(case.task, seed, make, share * case.task.middle_lr).loss


def plan(seeds: int) -> Iterator[tuple[str, str, float, int]]:
    """Yield all runs: case, method, share of the middle rate, seed."""
    for name, case in CASES.items():
        for method in METHODS:
            for share in PEAKS if method == "left alone" else (case.share,):
                for seed in range(seeds):
                    yield name, method, share, seed


def rows(losses: dict[tuple[str, str, float, int], float]) -> list[dict[str, Any]]:
    """Return mean losses by case and method; the best rate of those left alone."""
    table = []
    for name in CASES:
        row: dict[str, Any] = {"case": name}
        for method in METHODS:
            by_share: dict[float, list[float]] = {}
            for (case, how, share, _), loss in losses.items():
                if (case, how) == (name, method):
                    by_share.setdefault(share, []).append(loss)
            row[method] = min(map(fmean, by_share.values()), default=math.nan)
        table.append(row)
    return table


def main(args: Args) -> dict[str, Any]:
    """Run all cases; print and write the result."""
    runs = list(plan(args.seeds))
    with ProcessPoolExecutor(args.workers) as pool:
        found = pool.map(final_loss, *zip(*runs, strict=True))
        losses = dict(zip(runs, found, strict=True))
    table = rows(losses)
    print(markdown([{k: value_text(v) for k, v in row.items()} for row in table]))
    return write_result(args.out, {"seeds": args.seeds, "mean_final_loss": table})


def value_text(value: object) -> str:
    """Return a cell: numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
