"""What a learned controller has to see: the same learner, other observations.

    python -m benchmarks.controller.features

Every variant learns on the simulated family of `agents/train_controller.py`, from
several seeds, and is judged on the same fresh simulated runs, by how far it ends above
the `update_size` rule. One feature is left out at a time, or added; one learner has a
memory, and one is a table, which sees the absolute rate and cannot step back. Finished
learners are kept in `--jobs`. Simulated throughout: what a law does not know, such as
another width, plays no part.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.agent import Agent
from agents.baselines import UpdateSizeAgent
from agents.tabular_q import TabularQ
from agents.train_controller import (
    DECISIONS,
    final_losses,
    learner,
    simulated,
)
from agents.train_controller import (
    Args as Learning,
)
from benchmarks.results_file import write_json, write_result
from benchmarks.table_text import markdown
from lr_gym.controllers.policies.q_table import FEATURES

SEEN = DECISIONS["features"]


@dataclass(frozen=True)
class Variant:
    """A learner and what it sees.

    Attributes:
        name: Its row.
        algo: One of stable-baselines3's, or ``q_improved``.
        changes: What differs from the decisions of `agents/train_controller.py`.
        slow: Whether it takes so long that one learner has to do.
    """

    name: str
    algo: str = "ppo"
    changes: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False


def _sees(name: str, *features: str) -> Variant:
    return Variant(name, changes={"features": features})


LABELS = {  # in the table, where the name of a variant says too little
    "the four": "all four features",
    "with the absolute rate": "with the absolute LR",
    "no way back": "without undo",
    "with a memory": "recurrent PPO",
    "a table": "tabular Q-learning on (LR, decision), without undo",
}
VARIANTS = (
    _sees("the four", *SEEN),
    *(_sees(f"without {name}", *(f for f in SEEN if f != name)) for name in SEEN),
    _sees("with grad_norm", *SEEN, "grad_norm"),
    _sees("with the absolute rate", *SEEN, "log_learning_rate"),
    Variant("no way back", changes={"allow_undo": False}),
    Variant("with a memory", "recurrent_ppo", slow=True),
    Variant("a table", "q_improved", {"features": FEATURES, "allow_undo": False}, True),
)


@dataclass
class Args:
    """Let every variant learn, judge it, and write the table."""

    variants: tuple[str, ...] = tuple(variant.name for variant in VARIANTS)
    """Rows to run."""
    episodes: int = 20_000
    """Simulated runs to learn from."""
    seeds: int = 2
    """Learners of each variant, and one of the slow ones."""
    checks: int = 500
    """Fresh simulated runs that each is judged on."""
    scale: str = "tiny"
    """A scale with laws."""
    jobs: Path = Path("results/controller_features")
    """Folder of finished learners, which do not learn again."""
    out: Path = Path("benchmarks/results/controller/controller_features.json")
    """Where the result goes."""


def learned(variant: Variant, args: Learning) -> Callable[[int], Agent]:
    """Let a variant learn; return what makes copies of it, one per run."""
    env = simulated(args, **variant.changes)
    agent: Any
    if variant.algo == "q_improved":
        table = {"factors": DECISIONS["lr_factors"], "reward": DECISIONS["reward"]}
        agent = TabularQ(args.seed, **table)
    else:
        agent = learner(args, env, variant.algo)
    agent.settings = {**DECISIONS, **variant.changes}
    agent.train(env, args.episodes)
    return lambda seed: copy.copy(agent)  # a model is shared, a memory is not


def run(variant: Variant, seed: int, args: Args) -> dict[str, Any]:
    """Return what one learner ended with, from its file where there is one."""
    parts = (variant.name, args.scale, args.episodes, args.checks, seed)
    name = "-".join(map(str, parts)).replace(" ", "_")
    path = args.jobs / f"{name}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    started = time.process_time()
    how = Learning(scale=args.scale, episodes=args.episodes, seed=seed)
    make = learned(variant, how)
    seconds = time.process_time() - started
    losses = final_losses(make, "surrogate", args.checks, how)
    found = {"seconds": seconds, "final_val_loss": losses.tolist()}
    args.jobs.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    print(f"{path.stem}: {np.mean(losses):.4f} ({seconds:.0f} s)", flush=True)
    return found


def main(args: Args) -> dict[str, Any]:
    """Learn, judge, print the table, write the result."""
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in args.variants if name not in known]
    if unknown:
        raise SystemExit(f"error: --variants must be of {list(known)}, got {unknown}")
    runs = {
        name: [
            run(known[name], seed, args)
            for seed in range(1 if known[name].slow else args.seeds)
        ]
        for name in args.variants
    }
    how = Learning(scale=args.scale)
    rule = final_losses(UpdateSizeAgent, "surrogate", args.checks, how)
    result: dict[str, Any] = {
        "scale": args.scale,
        "episodes": args.episodes,
        "checks": args.checks,
        "rule_mean_final_val_loss": float(rule.mean()),
        "variants": {
            name: {
                "algo": known[name].algo,
                "features": list(known[name].changes.get("features", SEEN)),
                "above_rule": [
                    float(np.mean(learner["final_val_loss"]) - rule.mean())
                    for learner in own
                ],
                "median_above_rule": [
                    float(np.median(np.array(learner["final_val_loss"]) - rule))
                    for learner in own
                ],
                "seconds": [learner["seconds"] for learner in own],
            }
            for name, own in runs.items()
        },
    }
    print(markdown(rows(result)))
    return write_result(args.out, result)


def rows(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return the table: mean over runs, by learner; and the median run's."""
    return [
        {
            "learner": LABELS.get(name, name),
            "minus the rule, nats, mean of runs": _spread(found["above_rule"]),
            "minus the rule, nats, median run": _spread(found["median_above_rule"]),
            "seeds": str(len(found["seconds"])),
            "seconds to learn": f"{np.median(found['seconds']):.0f}",
        }
        for name, found in result["variants"].items()
    ]


def _spread(values: list[float]) -> str:
    """Return the median and the range of several learners."""
    low, high = min(values), max(values)
    return f"{np.median(values):+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
