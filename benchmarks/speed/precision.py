"""Does a fast path train as well as float32? Paired differences of the final loss.

    python -m benchmarks.speed.precision --env shakespeare --scale tiny --precision
        bfloat16

The same seeds train on the same batches with the same learning rates, once on the fast
path (`precision` and `compile`) and once in float32 without compilation. The result is
the mean difference in final validation loss on the whole split, with its 95 %
t-interval. Both weights are also evaluated in the other number format, to separate
errors of training from errors of evaluation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from agents.command_line import parse_command_line
from benchmarks.results_file import update_result
from lr_gym import PopulationTrainer, load_corpus, preset, schedule_factor
from lr_gym.progress import ProgressBar
from lr_gym.trainers.base import FloatArray


@dataclass
class Args:
    """Compare a fast path with float32."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: str = "tiny"
    """tiny, mini or paper."""
    precision: str = "bfloat16"
    """Number format of the fast path: bfloat16 or float32."""
    compile: str = "off"
    """Compile mode of the fast path: off, default or graph."""
    seeds: int = 10
    """Pairs of runs."""
    base_schedule: str = "cosine"
    """The schedule; its peak is the scale's learning rate."""
    max_iters: int | None = None
    """Length of a run; default: the scale's."""
    out: Path = Path("benchmarks/results/speed/precision.json")
    """The result file. Results of other settings stay in it."""


def compare(args: Args) -> dict[str, Any]:
    """Return the final losses of both paths and the statistics of their difference."""
    settings = {} if args.max_iters is None else {"max_iters": args.max_iters}
    paths = {
        "float32": {"precision": "float32", "compile": "off"},
        "fast": {"precision": args.precision, "compile": args.compile},
    }
    corpus = load_corpus(args.env)
    trainers = {}
    for name, path in paths.items():
        config = preset(args.scale, args.env, **path, **settings)
        trainer = PopulationTrainer(config, corpus, args.seeds)
        trainer.reset(range(args.seeds), range(args.seeds))
        steps = np.arange(config.max_iters)
        factor = schedule_factor(
            args.base_schedule, steps, config.max_iters, config.warmup_iters
        )
        rates = np.broadcast_to(
            config.learning_rate * factor, (args.seeds, config.max_iters)
        )
        with ProgressBar(total=config.max_iters, desc=name) as bar:
            trainer.train(config.max_iters, rates, bar.update)
        trainers[name] = trainer
    trained = {name: trainer.state_dict() for name, trainer in trainers.items()}
    losses: dict[str, FloatArray] = {}
    for evaluator, trainer in trainers.items():
        for name, state in trained.items():
            trainer.load_state_dict(state)
            losses[f"{name}, evaluated as {evaluator}"] = trainer.evaluate(exact=True)
    return {
        "config": asdict(trainers["fast"].config),
        "final_val_loss": {name: values.tolist() for name, values in losses.items()},
        "difference": _paired(losses, "fast", "fast"),
        "difference_evaluated_as_float32": _paired(losses, "fast", "float32"),
    }


def _paired(
    losses: dict[str, FloatArray], path: str, evaluator: str
) -> dict[str, float]:
    """Return mean and 95 % interval of `path` minus float32, over the seeds."""
    reference = losses["float32, evaluated as float32"]
    difference = losses[f"{path}, evaluated as {evaluator}"] - reference
    interval = stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)
    return {
        "mean": float(difference.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "sd": float(difference.std(ddof=1)),
    }


def main(args: Args) -> None:
    """Compare, print and write the result."""
    result = compare(args)
    for name in ("difference", "difference_evaluated_as_float32"):
        interval = result[name]
        print(
            f"{name.replace('_', ' ')}: {interval['mean']:+.4f} nats per character, "
            f"95 % interval {interval['low']:+.4f} to {interval['high']:+.4f}"
        )
    key = f"{args.env}-{args.scale}-{args.precision}-{args.compile}"
    update_result(args.out, key, result)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
