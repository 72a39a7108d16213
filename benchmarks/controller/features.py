"""Ablation of the observations of a learned controller.

    python -m benchmarks.controller.features

Every variant learns on the simulated family of `agents/train_controller.py`, with
several seeds. The result is its final loss minus that of the `update_size` rule, on the
same fresh simulated runs. Variants leave out or add one feature. One learner is
recurrent, and one is a table, which sees the absolute learning rate and has no undo.
Finished learners stay in `--jobs`; those that other code made run again. All runs are
simulated, so effects that the laws do not model, such as another width, do not count.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.agent import Agent
from agents.baselines import UpdateSizeAgent
from agents.command_line import parse_command_line
from agents.tabular_q import TabularQ
from agents.train_controller import (
    DECISIONS,
    final_losses,
    learner,
    simulated,
)
from agents.train_controller import (
    Args as TrainingArgs,
)
from benchmarks.dependencies import code_hash
from benchmarks.results_file import write_json, write_result
from benchmarks.table_text import markdown
from lr_gym.controllers.policies.q_table import FEATURES
from lr_gym.files import read_json_object

DEFAULT_FEATURES = DECISIONS["features"]


@dataclass(frozen=True)
class Variant:
    """A learner and its settings.

    Attributes:
        name: The name on the command line.
        algo: An algorithm of stable-baselines3, or ``q_improved``.
        changes: Settings other than `DECISIONS` of `agents/train_controller.py`.
        slow: Whether it runs with one seed only, because it takes long.
    """

    name: str
    algo: str = "ppo"
    changes: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False


def _with_features(name: str, *features: str) -> Variant:
    return Variant(name, changes={"features": features})


LABELS = {  # in the table, where the name of a variant says too little
    "the four": "all four features",
    "with the absolute rate": "with the absolute LR",
    "no way back": "without undo",
    "with a memory": "recurrent PPO",
    "a table": "tabular Q-learning on (LR, decision), without undo",
}
VARIANTS = (
    _with_features("the four", *DEFAULT_FEATURES),
    *(
        _with_features(f"without {name}", *(f for f in DEFAULT_FEATURES if f != name))
        for name in DEFAULT_FEATURES
    ),
    _with_features("with grad_norm", *DEFAULT_FEATURES, "grad_norm"),
    _with_features("with the absolute rate", *DEFAULT_FEATURES, "log_learning_rate"),
    Variant("no way back", changes={"allow_undo": False}),
    Variant("with a memory", "recurrent_ppo", slow=True),
    Variant("a table", "q_improved", {"features": FEATURES, "allow_undo": False}, True),
)


@dataclass
class Args:
    """Train every variant, evaluate it, and write the table."""

    variants: tuple[str, ...] = tuple(variant.name for variant in VARIANTS)
    """Variants to run."""
    episodes: int = 20_000
    """Simulated runs per learner."""
    seeds: int = 2
    """Learners per variant; slow variants have one."""
    checks: int = 500
    """Fresh simulated runs of the evaluation."""
    scale: str = "tiny"
    """A scale that has fitted laws."""
    jobs: Path = Path("results/controller_features")
    """Folder of finished learners, which are not trained again."""
    out: Path = Path("benchmarks/results/controller/controller_features.json")
    """The result file."""


def train(variant: Variant, args: TrainingArgs) -> Callable[[int], Agent]:
    """Train a variant; return a function that makes a copy of it for a run."""
    env = simulated(args, **variant.changes)
    agent: Any
    if variant.algo == "q_improved":
        table = {"factors": DECISIONS["lr_factors"], "reward": DECISIONS["reward"]}
        agent = TabularQ(args.seed, **table)
    else:
        agent = learner(args, env, variant.algo)
    agent.settings = {**DECISIONS, **variant.changes}
    agent.train(env, args.episodes)
    return lambda seed: copy.copy(agent)  # copies share the model, not the memory


def run(variant: Variant, seed: int, args: Args) -> dict[str, Any]:
    """Return the result of one learner, from its file if it has finished."""
    parts = (variant.name, args.scale, args.episodes, args.checks, seed)
    name = "-".join(map(str, parts)).replace(" ", "_")
    path = args.jobs / f"{name}.json"
    code = code_hash("benchmarks.controller.features")
    if path.exists():
        finished = read_json_object(path)
        if finished.get("code") == code:
            return finished
        print(f"{path.stem} is old: other code made it; it runs again", flush=True)
    started = time.process_time()
    options = TrainingArgs(scale=args.scale, episodes=args.episodes, seed=seed)
    make = train(variant, options)
    seconds = time.process_time() - started
    losses = final_losses(make, "surrogate", args.checks, options)
    result = {"code": code, "seconds": seconds, "final_val_loss": losses.tolist()}
    args.jobs.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    print(f"{path.stem}: {np.mean(losses):.4f} ({seconds:.0f} s)", flush=True)
    return result


def main(args: Args) -> dict[str, Any]:
    """Train, evaluate, print the table, write the result."""
    variants = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in args.variants if name not in variants]
    if unknown:
        raise SystemExit(
            f"error: --variants must be of {list(variants)}, got {unknown}"
        )
    runs = {
        name: [
            run(variants[name], seed, args)
            for seed in range(1 if variants[name].slow else args.seeds)
        ]
        for name in args.variants
    }
    options = TrainingArgs(scale=args.scale)
    rule = final_losses(UpdateSizeAgent, "surrogate", args.checks, options)
    result: dict[str, Any] = {
        "scale": args.scale,
        "episodes": args.episodes,
        "checks": args.checks,
        "rule_mean_final_val_loss": float(rule.mean()),
        "variants": {
            name: {
                "algo": variants[name].algo,
                "features": list(
                    variants[name].changes.get("features", DEFAULT_FEATURES)
                ),
                "above_rule": [
                    float(np.mean(learner["final_val_loss"]) - rule.mean())
                    for learner in learners
                ],
                "median_above_rule": [
                    float(np.median(np.array(learner["final_val_loss"]) - rule))
                    for learner in learners
                ],
                "seconds": [learner["seconds"] for learner in learners],
            }
            for name, learners in runs.items()
        },
    }
    print(markdown(rows(result)))
    return write_result(args.out, result)


def rows(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return the table: per variant the median and the range over its learners."""
    return [
        {
            "learner": LABELS.get(name, name),
            "minus the rule, nats, mean of runs": _spread(variant["above_rule"]),
            "minus the rule, nats, median run": _spread(variant["median_above_rule"]),
            "seeds": str(len(variant["seconds"])),
            "seconds to learn": f"{np.median(variant['seconds']):.0f}",
        }
        for name, variant in result["variants"].items()
    ]


def _spread(values: list[float]) -> str:
    """Return the median and the range of a value over learners."""
    low, high = min(values), max(values)
    return f"{np.median(values):+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
