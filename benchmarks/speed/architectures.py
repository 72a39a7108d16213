"""What the architectures cost, and where their learning rates lie.

    python -m benchmarks.speed.architectures
    python -m benchmarks.speed.architectures --scale mini --learning-rates  # speeds
        alone

Training at several population sizes takes turns (`timing.py`); then each architecture
trains at a grid of constant learning rates, as in `lr_matters.py`. Results are kept
after every part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

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
    """Time training, and sweep the learning rate."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: tuple[Literal["paper", "mini", "tiny"], ...] = ("tiny", "mini")
    """Sizes of the models."""
    sizes: tuple[int, ...] = (1, 8)
    """Population sizes E that are timed."""
    repeats: int = 7
    """Turns that each takes."""
    threads: int = 1
    """Of torch."""
    learning_rates: tuple[float, ...] = HALF_DECADES[1:6]
    """The grid, or none; the default is 3.16e-4 to 3.16e-2 by half decades."""
    seeds: int = 2
    """Runs per learning rate."""
    max_iters: int | None = None
    """Shorter runs than the scale's, in the sweep."""
    out: Path = Path("benchmarks/results/speed/architectures.json")
    """Where results are kept; those of other scales and corpora stay in the file."""


def parameter_count(config: TrainingConfig, vocab_size: int) -> int:
    """Return the number of the model's weights."""
    with torch.device("meta"):
        model = build_model(config, vocab_size)
    return sum(weight.numel() for weight in model.parameters())


def speeds(
    configs: dict[str, TrainingConfig], args: Args, scale: str
) -> dict[str, dict[str, Any]]:
    """Return the training speed of every architecture and size, after equal turns."""
    corpus = load_corpus(args.env)
    made = [
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
    peaks = {made[0].precision: matmul_peak(device, made[0].precision, (1024,))}
    warm_up(made, device)
    take_turns(made, args.repeats, device)
    return summarize(made, peaks)


def measure(args: Args, scale: str) -> Iterator[dict[str, Any]]:
    """Yield everything about one scale, again after every part."""
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
        found = sweep(config, args.learning_rates, args.seeds)
        result["learning_rates"][name] = found
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


def _sweep_cells(found: dict[str, Any]) -> dict[str, str]:
    config, seeds = found["config"], len(found["final_val_loss"])
    return {
        "LR of the preset": f"{config['learning_rate']:g}",
        "best constant LR": f"{found['best_learning_rate']:g}",
        "its final val loss": f"{found['best_mean_val_loss']:.3f}",
        "runs per LR": f"{seeds} of {config['max_iters']} iterations",
    }


def main(args: Args) -> None:
    """Measure every scale, keep the results, print the table."""
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {}
    for scale in args.scale:
        for result in measure(args, scale):
            results = update_result(args.out, f"{args.env}-{scale}", result)
    print(table(results))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
