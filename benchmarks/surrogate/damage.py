"""Damage and undo: simulated against real runs from wrong learning rates.

    python -m benchmarks.surrogate.damage

Shakespeare at `tiny`, 600 iterations, from a learning rate that is wrong by a factor:
by WSD with this peak, and by a rule that ramps the learning rate up from far below and
undoes a chunk when the loss rises. `REAL` has the results of three real seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.command_line import parse_command_line
from benchmarks.results_file import write_result
from lr_gym import SurrogateTrainer
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.law_files import packaged_law
from lr_gym.trainers.base import FloatArray

GOOD_LR = 8e-3  # the peak of the best WSD run
FACTORS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
WSD = "WSD from that rate"
RULES = {  # start as a share of the initial LR, growth per chunk
    "ramp and undo from 1/30, x1.6": (1 / 30, 1.6),
    "ramp and undo from 1/300, x2": (1 / 300, 2.0),
}
# Final validation losses of real runs: lowest and highest of three seeds, or the mean.
REAL: dict[str, tuple[tuple[float, float], ...]] = {
    WSD: (
        (2.55, 2.55),
        (2.37, 2.37),
        (2.19, 2.19),
        (2.14, 2.14),
        (2.67, 2.67),
        (3.08, 3.08),
        (3.30, 3.30),
    ),
    "ramp and undo from 1/30, x1.6": (
        (2.18, 2.24),
        (2.15, 2.24),
        (2.14, 2.15),
        (2.14, 2.20),
        (2.13, 2.14),
        (2.13, 2.16),
        (2.70, 2.76),
    ),
    "ramp and undo from 1/300, x2": (
        (2.18, 2.29),
        (2.17, 2.19),
        (2.15, 2.21),
        (2.14, 2.24),
        (2.13, 2.24),
        (2.12, 2.14),
        (2.13, 2.23),
    ),
}
CHUNK = 10  # iterations between decisions
MAX_LOSS_RISE = 0.03  # nats; after a larger rise the chunk is undone
UNDO_FACTOR = 3.0  # then divides the learning rate
COOLDOWN_SHARE = 0.3  # of the run


@dataclass
class Args:
    """Simulate the cells of the table."""

    seeds: int = 100
    """Simulated runs per cell."""
    out: Path = Path("benchmarks/results/surrogate/damage.json")
    """The result file."""


def final_wsd(
    trainer: SurrogateTrainer, rates: FloatArray, max_iters: int
) -> FloatArray:
    """Return the final losses of WSD schedules with peaks `rates`, (E,)."""
    factors = schedule_factor("wsd", np.arange(max_iters), max_iters, 20)
    trainer.train(max_iters, rates[:, None] * factors)
    return trainer.evaluate()


def final_ramp(
    trainer: SurrogateTrainer, rates: FloatArray, growth: float, max_iters: int
) -> FloatArray:
    """Return the final losses of the rule from the first learning rates, (E,)."""
    members = range(trainer.size)
    rates, ramping = rates.copy(), np.ones(trainer.size, dtype=np.bool_)
    loss = trainer.evaluate()
    for start in range(0, max_iters, CHUNK):
        before = trainer.snapshot(members)
        cooled = max(0.0, (start / max_iters - (1 - COOLDOWN_SHARE)) / COOLDOWN_SHARE)
        trainer.train(CHUNK, rates * (1.0 - np.sqrt(cooled)))
        after = trainer.evaluate()
        risen = ~(after <= loss + MAX_LOSS_RISE)  # true if the loss has diverged
        undone = np.flatnonzero(risen)
        if len(undone):
            states = {name: values[undone] for name, values in before.items()}
            trainer.restore(undone.tolist(), states, rewind=False)
        loss = np.where(risen, loss, after)
        ramping &= ~risen & (cooled == 0.0)
        rates = np.where(
            risen, rates / UNDO_FACTOR, np.where(ramping, rates * growth, rates)
        )
    return trainer.evaluate()


def main(args: Args) -> dict[str, Any]:
    """Simulate every cell; print and write the table."""
    law = packaged_law("shakespeare", "tiny")
    max_iters = law.training.max_iters
    size = len(FACTORS) * args.seeds
    initial = GOOD_LR * np.repeat(FACTORS, args.seeds)
    cells: dict[str, Any] = {}
    for name, real in REAL.items():
        trainer = SurrogateTrainer(law, size)
        trainer.reset(range(size), list(range(args.seeds)) * len(FACTORS))
        if name == WSD:
            losses = final_wsd(trainer, initial, max_iters)
        else:
            share, growth = RULES[name]
            losses = final_ramp(trainer, share * initial, growth, max_iters)
        table = losses.reshape(len(FACTORS), args.seeds)
        means = table.mean(axis=1)
        # Distances to the range of the real seeds.
        errors = [
            float(np.clip(low - mean, 0.0, None) + np.clip(mean - high, 0.0, None))
            for mean, (low, high) in zip(means, real, strict=True)
        ]
        cells[name] = {
            "real": real,
            "mean": means.tolist(),
            "quartiles": np.quantile(table, [0.25, 0.75], axis=1).T.tolist(),
            "error": errors,
        }
        print(name)
        for factor, mean, (low, high), error in zip(
            FACTORS, means, real, errors, strict=True
        ):
            print(
                f"  x{factor:<8.3g} {mean:.3f}  real {low:.2f}-{high:.2f}  {error:.3f}"
            )
    result = {
        "good_rate": GOOD_LR,
        "factors": FACTORS,
        "seeds": args.seeds,
        "cells": cells,
    }
    return write_result(args.out, result)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
