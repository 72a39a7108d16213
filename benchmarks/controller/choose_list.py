"""Choose the fourth list of tasks, held_out_v4.json, by a fixed seed.

    python -m benchmarks.controller.choose_list

The tasks differ more than those of lists 1 to 3: in model, width, depth, batch, length,
and in how often a run is evaluated. Their good learning rates lie at least `SPREAD`
apart, by the rule of `good_rate`. Nothing here runs a training: the cost is estimated
from the sizes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.command_line import parse_command_line
from benchmarks.controller.instance_jobs import ListedInstance
from lr_gym.config import preset
from lr_gym.files import write_text
from lr_gym.trainers.loss import PopulationLoss

CORPORA = ("shakespeare", "text8", "markov", "javascript.txt")
ARCHITECTURES = ("gpt", "gpt", "lstm", "conv")  # of the tasks of a corpus
CHOICES: dict[str, tuple[int, ...]] = {
    "n_layer": (1, 2, 3, 4, 6, 8, 10),
    "n_embd": (32, 64, 96, 128, 192, 256, 384),
    "batch_size": (4, 8, 16, 32, 64),
    "max_iters": (150, 300, 600, 1_200, 3_000),
    "evaluations": (5, 10, 20, 50, 100),
}
LR_FACTORS = (0.0333, 0.1, 0.3333, 1.0, 3.0, 10.0, 30.0)
SPREAD = 30.0  # of the good learning rates: the highest over the lowest, at least

# Estimates, from the seconds of finished jobs on one core of a CPU.
FLOPS = 55e9  # per second
UPDATE_SECONDS = 1e-3, 1.5e-3  # of an update of any size: once, and per layer
VOCABULARY = 64
TEST_CHARACTERS = 200_000  # the mean over the corpora
RUNS = 24 + 8 * 5  # tuned; tests of 3 schedules and rules, 2 controllers, 2 optimizers
RUN_LIMIT = 60.0  # seconds of a run
TOTAL_LIMIT = 6 * 3600.0  # seconds of all runs of all tasks


@dataclass
class Args:
    """Choose the tasks and write the list."""

    seed: int = 4
    """Of the choice."""
    out: Path = Path("benchmarks/controller/held_out_v4.json")
    """The list."""


def good_rate(width: int, batch_size: int) -> float:
    """Return a peak learning rate that is expected to be good.

    It is 8e-3 for width 64 and batch 16, as on list 1; proportional to 1 / width, as in
    `lr_gym.InstanceFamily`, and to the root of the batch (Malladi et al. 2022, arXiv
    2205.10287).
    """
    return float(f"{8e-3 * 64 / width * (batch_size / 16) ** 0.5:.2g}")


def run_seconds(instance: ListedInstance) -> float:
    """Return the estimated seconds of one run on one core."""
    base = preset("tiny")
    shape = instance.training_config(base)
    weights = _weights(instance.architecture, shape.n_layer, shape.n_embd, shape.n_head)
    trained = instance.max_iters * instance.batch_size * base.block_size
    evaluated = (instance.evaluations or 0) * int(base.eval_tokens or 0)
    flops = weights * (6 * trained + 2 * (evaluated + TEST_CHARACTERS))
    once, per_layer = UPDATE_SECONDS
    overhead = instance.max_iters * (once + per_layer * instance.n_layer)
    return flops / FLOPS + overhead


@cache
def _weights(architecture: str, n_layer: int, n_embd: int, n_head: int) -> int:
    """Return the number of a model's weights."""
    config = preset(
        "tiny",
        architecture=architecture,
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
    )
    model = PopulationLoss(config, VOCABULARY, torch.float32)
    return sum(shape.numel() for shape in model.shapes.values())


def choose(seed: int) -> list[ListedInstance]:
    """Return the tasks: the first choice that has both ends of every range."""
    generator = np.random.default_rng(seed)
    while True:
        chosen = [
            _draw(generator, corpus, architecture)
            for architecture in ARCHITECTURES
            for corpus in CORPORA
        ]
        if _fits(chosen):
            return chosen


def _draw(
    generator: np.random.Generator, corpus: str, architecture: str
) -> ListedInstance:
    """Return a random task with runs that are short enough."""

    def pick(values: Sequence[Any]) -> Any:  # noqa: ANN401 - of any of the tuples above
        return values[int(generator.integers(len(values)))]

    while True:
        fields = {name: pick(values) for name, values in CHOICES.items()}
        instance = ListedInstance(
            corpus=corpus,
            architecture=architecture,
            good_lr=good_rate(fields["n_embd"], fields["batch_size"]),
            lr_factor=pick(LR_FACTORS),
            **fields,
        )
        if run_seconds(instance) <= RUN_LIMIT:
            return instance


def _fits(chosen: Sequence[ListedInstance]) -> bool:
    """Whether the list has the ends of all ranges, and spread, and is affordable."""
    for name, values in (*CHOICES.items(), ("lr_factor", LR_FACTORS)):
        drawn = {getattr(instance, name) for instance in chosen}
        if not {values[0], values[-1]} <= drawn:
            return False
    rates = [instance.good_lr for instance in chosen]
    return max(rates) >= SPREAD * min(rates) and total_seconds(chosen) <= TOTAL_LIMIT


def total_seconds(chosen: Sequence[ListedInstance]) -> float:
    """Return the estimated seconds of all runs of all tasks on one core."""
    return RUNS * sum(map(run_seconds, chosen))


def main(args: Args) -> list[ListedInstance]:
    """Write the list; print the estimated cost of every task."""
    chosen = choose(args.seed)
    lines = []
    for instance in chosen:
        fields = asdict(instance)
        lines.append(json.dumps(fields))
        print(f"{run_seconds(instance):5.1f} s a run  {lines[-1]}")
    write_text(args.out, "[\n " + ",\n ".join(lines) + "\n]\n")
    rates = [instance.good_lr for instance in chosen]
    print(
        f"{RUNS} runs a task: {total_seconds(chosen) / 3600:.1f} core hours; good "
        f"rates from {min(rates):g} to {max(rates):g}"
    )
    return chosen


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
