"""Does the law know damage and undo? Simulated against real runs from wrong rates.

    python -m benchmarks.surrogate.damage

Shakespeare at `tiny`, 600 iterations, begun at a learning rate that is wrong by a
factor: WSD from that rate, and a rule that ramps the rate up from far below and takes
a chunk back when the loss rises. `REAL` is what real training gave, three seeds each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results_file import write_result
from lr_gym import SurrogateTrainer
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.law_files import packaged_law
from lr_gym.trainers.base import FloatArray

GOOD = 8e-3  # the peak rate of the best WSD run
FACTORS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
WSD = "WSD from that rate"
RULES = {  # start as a share of the given rate, growth per chunk
    "ramp and undo from 1/30, x1.6": (1 / 30, 1.6),
    "ramp and undo from 1/300, x2": (1 / 300, 2.0),
}
# Final validation loss of real runs: lowest and highest of three seeds, or their mean.
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
CHUNK = 10  # iterations between the rule's decisions
RISE = 0.03  # nats: a larger one is taken back
BACK = 3.0  # what the rate is then divided by
COOLDOWN = 0.3  # share of the run


@dataclass
class Args:
    """Simulate the cells of the table."""

    seeds: int = 100
    """Simulated runs per cell."""
    out: Path = Path("benchmarks/results/surrogate/damage.json")
    """Where the result goes."""


def final_wsd(
    trainer: SurrogateTrainer, rates: FloatArray, max_iters: int
) -> FloatArray:
    """Return final losses of WSD schedules at the given peaks, (E,)."""
    factors = schedule_factor("wsd", np.arange(max_iters), max_iters, 20)
    trainer.train(max_iters, rates[:, None] * factors)
    return trainer.evaluate()


def final_ramp(
    trainer: SurrogateTrainer, rates: FloatArray, growth: float, max_iters: int
) -> FloatArray:
    """Return final losses of the rule from the given first rates, (E,)."""
    everybody = np.arange(trainer.size)
    rates, ramping = rates.copy(), np.ones(trainer.size, dtype=np.bool_)
    loss = trainer.evaluate()
    for start in range(0, max_iters, CHUNK):
        before = trainer.snapshot(everybody.tolist())
        cooled = max(0.0, (start / max_iters - (1 - COOLDOWN)) / COOLDOWN)
        trainer.train(CHUNK, rates * (1.0 - np.sqrt(cooled)))
        after = trainer.evaluate()
        risen = ~(after <= loss + RISE)  # a diverged loss counts as risen
        undo = np.flatnonzero(risen)
        if len(undo):
            rows = {name: values[undo] for name, values in before.items()}
            trainer.restore(undo.tolist(), rows, rewind=False)
        loss = np.where(risen, loss, after)
        ramping &= ~risen & (cooled == 0.0)
        rates = np.where(risen, rates / BACK, np.where(ramping, rates * growth, rates))
    return trainer.evaluate()


def main(args: Args) -> dict[str, Any]:
    """Simulate every cell; print and write the table."""
    law = packaged_law("shakespeare", "tiny")
    max_iters = law.training.max_iters
    size = len(FACTORS) * args.seeds
    given = GOOD * np.repeat(FACTORS, args.seeds)
    cells: dict[str, Any] = {}
    for name, real in REAL.items():
        trainer = SurrogateTrainer(law, size)
        trainer.reset(range(size), list(range(args.seeds)) * len(FACTORS))
        if name == WSD:
            losses = final_wsd(trainer, given, max_iters)
        else:
            share, growth = RULES[name]
            losses = final_ramp(trainer, share * given, growth, max_iters)
        table = losses.reshape(len(FACTORS), args.seeds)
        means = table.mean(axis=1)
        # From the nearer end of what the real seeds gave.
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
        "good_rate": GOOD,
        "factors": FACTORS,
        "seeds": args.seeds,
        "cells": cells,
    }
    return write_result(args.out, result)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
