"""Training speed and learning rates of the architectures.

    python -m benchmarks.speed.architectures
    python -m benchmarks.speed.architectures --scale mini --learning-rates  # only speed

The architectures take turns at several population sizes (`timing.py`). Then each trains
at a grid of constant learning rates, as in `lr_matters.py`. The result file is written
after every part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from agents.command_line import parse_command_line
from benchmarks.comparison.lr_matters import HALF_DECADES, sweep
from benchmarks.results_file import update_result
from benchmarks.speed import variants
from benchmarks.speed.scale_suite import ITERATIONS
from benchmarks.speed.timing import matmul_peak, say, summarize, take_turns, warm_up
from benchmarks.table_text import markdown
from lr_gym import TrainingConfig, load_corpus, preset
from lr_gym.config import ARCHITECTURES
from lr_gym.devices import resolve_device
from lr_gym.models import build_model


@dataclass
class Args:
    """Time training and sweep the learning rate."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: tuple[Literal["paper", "mini", "tiny"], ...] = ("tiny", "mini")
    """Sizes of the models."""
    sizes: tuple[int, ...] = (1, 8)
    """Population sizes E to time."""
    repeats: int = 7
    """Timed turns of each."""
    threads: int = 1
    """Threads of torch."""
    learning_rates: tuple[float, ...] = HALF_DECADES[1:6]
    """The grid, or none; default: 3.16e-4 to 3.16e-2 by half decades."""
    seeds: int = 2
    """Runs per learning rate."""
    max_iters: int | None = None
    """Length of a run in the sweep; default: the scale's."""
    out: Path = Path("benchmarks/results/speed/architectures.json")
    """The result file. Results of other scales and corpora stay in it."""


def parameter_count(config: TrainingConfig, vocab_size: int) -> int:
    """Return the number of weights of the model."""
    with torch.device("meta"):
        model = build_model(config, vocab_size)
    return sum(weight.numel() for weight in model.parameters())


def speeds(
    configs: dict[str, TrainingConfig], args: Args, scale: str
) -> dict[str, dict[str, Any]]:
    """Return the training speed of every architecture and population size."""
    corpus = load_corpus(args.env)
    populations = [
        variants.population(
            f"{name} {size}",
            config,
            corpus,
            ITERATIONS[scale],
            size=size,
            reference=f"gpt {size}",
        )
        for size in args.sizes
        for name, config in configs.items()
    ]
    device = resolve_device("auto")
    precision = populations[0].precision
    peaks = {precision: matmul_peak(device, precision, (1024,))}
    warm_up(populations, device)
    take_turns(populations, args.repeats, device)
    return summarize(populations, peaks)


def measure(args: Args, scale: str) -> Iterator[dict[str, Any]]:
    """Yield the result of one scale after every part."""
    configs = {
        name: preset(scale, args.env, architecture=name) for name in ARCHITECTURES
    }
    say(f"{scale}: {len(configs)} architectures, population sizes {args.sizes}")
    vocab_size = load_corpus(args.env).vocab_size
    shorter = {} if args.max_iters is None else {"max_iters": args.max_iters}
    result: dict[str, Any] = {
        "parameters": {
            name: parameter_count(config, vocab_size)
            for name, config in configs.items()
        },
        "training": speeds(configs, args, scale),
        "learning_rates": {},
    }
    yield result
    for name in configs if args.learning_rates else ():
        config = preset(scale, args.env, architecture=name, **shorter)
        result["learning_rates"][name] = sweep(config, args.learning_rates, args.seeds)
        yield result


def table(results: dict[str, Any]) -> str:
    """Return the results of all scales and corpora as one Markdown table."""
    rows = []
    for key, result in results.items():
        for name, count in result["parameters"].items():
            row = {"task": key.replace("-", " "), "model": f"`{name}`"}
            row["parameters"] = f"{count:,}"
            for label, timed in result["training"].items():
                architecture, size = label.split()
                if architecture == name:
                    speed = timed["tokens_per_second"]["median"]
                    ratio = timed["ratio"]["median"]
                    column = f"characters/s, E = {size} (versus `gpt`)"
                    row[column] = f"{speed:,.0f} ({ratio:.2f})"
            if name in result["learning_rates"]:
                row |= _sweep_cells(result["learning_rates"][name])
            rows.append(row)
    return markdown(rows)


def _sweep_cells(sweep_result: dict[str, Any]) -> dict[str, str]:
    config, losses = sweep_result["config"], sweep_result["final_val_loss"]
    return {
        "LR of the preset": f"{config['learning_rate']:g}",
        "best constant LR": f"{sweep_result['best_learning_rate']:g}",
        "its final val loss": f"{sweep_result['best_mean_val_loss']:.3f}",
        "runs per LR": f"{len(losses)} of {config['max_iters']} iterations",
    }


def main(args: Args) -> None:
    """Measure every scale, write the results, print the table."""
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {}
    for scale in args.scale:
        for result in measure(args, scale):
            results = update_result(args.out, f"{args.env}-{scale}", result)
    print(table(results))


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
