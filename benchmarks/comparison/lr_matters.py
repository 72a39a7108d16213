"""Does the learning rate matter? Final loss against the constant learning rate.

    python -m benchmarks.comparison.lr_matters --env shakespeare --scale tiny mini

Trains one population per seed; its members differ in their learning rate, which is
constant after warm-up. Reports by how much the best rate beats rates ten times lower
and higher. If the margin is small, the task is too easy to compare agents on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.command_line import one_line_errors, parse_command_line
from benchmarks.results_file import read_results, update_result
from lr_gym import (
    PopulationTrainer,
    TrainingConfig,
    load_corpus,
    preset,
    schedule_factor,
)
from lr_gym.progress import ProgressBar

HALF_DECADES = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-8, 0))


@dataclass
class Args:
    """Train at a grid of constant learning rates."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: tuple[str, ...] = ("tiny",)
    """One or more of tiny, mini, paper."""
    learning_rates: tuple[float, ...] = HALF_DECADES
    """The grid; the default is 1e-4 to 0.316 by half decades."""
    seeds: int = 2
    """Runs per learning rate."""
    max_iters: int | None = None
    """Shorter runs than the scale's."""
    out: Path = Path("benchmarks/results/comparison/lr_matters.json")
    """Results file; results of other scales and corpora in it are kept."""


def sweep(
    config: TrainingConfig, learning_rates: Sequence[float], seeds: int
) -> dict[str, Any]:
    """Return final losses per learning rate and seed, and the margins of the best."""
    corpus = load_corpus(config.corpus)
    rates = np.array(sorted(learning_rates))
    factor = schedule_factor(
        "constant", np.arange(config.max_iters), config.max_iters, config.warmup_iters
    )
    losses = []
    for seed in range(seeds):
        trainer = PopulationTrainer(config, corpus, len(rates))
        trainer.reset(range(len(rates)), [seed] * len(rates))
        with ProgressBar(
            total=config.max_iters, desc=f"{config.scale}, seed {seed}"
        ) as bar:
            trainer.train(config.max_iters, rates[:, None] * factor, bar.update)
        final = np.where(trainer.diverged(), np.inf, trainer.evaluate(exact=True))
        losses.append(final)
    mean = np.mean(losses, axis=0)
    best = int(mean.argmin())
    result: dict[str, Any] = {
        "config": asdict(config),
        "learning_rates": rates.tolist(),
        # One list per seed; null marks a diverged run.
        "final_val_loss": [
            [loss if np.isfinite(loss) else None for loss in row.tolist()]
            for row in losses
        ],
        "best_learning_rate": float(rates[best]),
        "best_mean_val_loss": float(mean[best]),
    }
    for name, rate in (("lower", rates[best] / 10), ("higher", rates[best] * 10)):
        near = np.flatnonzero(np.isclose(rates, rate, rtol=0.02))
        margin = mean[near[0]] - mean[best] if len(near) else np.nan
        result[f"margin_10x_{name}"] = float(margin) if np.isfinite(margin) else None
    return result


def main(args: Args) -> None:
    """Run the sweeps, print a line per learning rate, write the results."""
    with one_line_errors():
        read_results(args.out)  # a damaged file is refused before any training
    settings = {} if args.max_iters is None else {"max_iters": args.max_iters}
    for scale in args.scale:
        config = preset(scale, args.env, **settings)
        result = sweep(config, args.learning_rates, args.seeds)
        print(f"{args.env}, {scale}: final validation loss, mean of {args.seeds} seeds")
        columns = zip(*result["final_val_loss"], strict=True)
        for rate, column in zip(result["learning_rates"], columns, strict=True):
            shown = "diverged" if None in column else f"{np.mean(column):.4f}"
            print(f"  {rate:9.2e}  {shown}")
        print(
            f"  best {result['best_learning_rate']:g}; a tenth of it loses "
            f"{result['margin_10x_lower']}, ten times it {result['margin_10x_higher']}"
        )
        update_result(args.out, f"{args.env}-{scale}", result)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
