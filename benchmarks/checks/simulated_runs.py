"""Runs of the results on simulated training: laws, proposals, damage, optimum."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checks.numbers import numbers, read_json
from benchmarks.checks.runs import Run
from benchmarks.paths import RESULTS
from benchmarks.surrogate import damage, exploit, fitting, optimum, proposals
from benchmarks.surrogate import runs as law_runs
from lr_gym import TrainingConfig, load_corpus, preset
from lr_gym.surrogate.law_files import packaged_law
from lr_gym.surrogate.runs import RecordedRun, load_runs
from lr_gym.trainers.base import FloatArray

LAWS = RESULTS / "surrogate"
LAW_CORPORA = ("markov", "shakespeare", "text8")
COLLECTED_TOGETHER = {"fit": 4, "held-out": 4, "proposals": 7}  # as the scripts do


def law_result_runs(path: Path) -> list[Run]:
    """Return the recorded runs of a law, in their populations, and its predictions.

    Args:
        path: The law, ``{env}-{scale}.json``.
    """
    env, scale = path.stem.split("-")
    config = preset(scale, env)
    plans = {
        "fit": law_runs.fitting_plan(config),
        "held-out": law_runs.held_out_plan(config),
    }
    runs = [_refit(path, env, scale)]
    for kind, planned in plans.items():
        recorded = {
            (run.name, run.seed): run
            for run in load_runs(path.with_name(f"{path.stem}-{kind}.npz"))
        }
        size = COLLECTED_TOGETHER[kind]
        for first in range(0, len(planned), size):
            group = planned[first : first + size]
            published = [recorded[plan.name, plan.seed] for plan in group]
            key = f"{kind} {first} to {first + len(group) - 1}"
            runs.append(_trained(key, config, env, group, published))
    return runs


def _trained(
    key: str,
    config: TrainingConfig,
    env: str,
    group: list[law_runs.Plan],
    published: list[RecordedRun],
) -> Run:
    """Return the planned runs of one population; their numbers are in float32."""

    def again() -> list[float]:
        corpus = load_corpus(env)
        runs = law_runs.collect(config, corpus, group, size=len(group))
        return [final_or_first(run.val_loss) for run in runs]

    seconds = len(group) * (4.0 if config.scale == "tiny" else 40.0)
    numbers = [final_or_first(run.val_loss) for run in published]
    return Run(key, numbers, again, seconds)


def final_or_first(losses: FloatArray) -> float:
    """Return a run's final loss in float32; the first one if training did damage.

    Some plans damage a model on purpose. Rounding then decides whether it ends at a
    loss of 90 or diverges.
    """
    first, final = np.float32(losses[0]), np.float32(losses[-1])
    return float(final if final < first else first)


def _refit(path: Path, env: str, scale: str) -> Run:
    """Return the final losses of held-out runs as all laws predict them, fitted again.

    Constants are not compared: several sets of them fit almost equally well, and
    rounding can decide between them. Predictions may move by a tenth of the law's own
    mean error, which changes that error by about a hundredth.
    """

    def again() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("fit", "held-out"):
                shutil.copy(path.with_name(f"{path.stem}-{kind}.npz"), folder)
            args = fitting.Args(env=env, scale=scale, collect=False, out=Path(folder))
            return predicted(fitting.main(args))

    def predicted(report: dict[str, Any]) -> list[float]:
        laws = report["laws"].values()
        finals = [law["held_out"]["final"].values() for law in laws]
        return [guess for of_law in finals for _, guess in of_law]

    report = read_json(path.with_name(f"{path.stem}-report.json"))
    error = report["laws"]["lr-gym"]["held_out"]["mean_final_error"]
    return Run(
        "refit", predicted(report), again, seconds=40.0, tolerance=0.1 * float(error)
    )


def proposal_runs(path: Path) -> list[Run]:
    """Return the rule's curves on a law, and the real runs that follow them."""
    env, scale = path.name.split("-")[:2]
    config = preset(scale, env)
    recorded = load_runs(path.with_suffix(".npz"))
    size = COLLECTED_TOGETHER["proposals"]
    groups = [recorded[first : first + size] for first in range(0, len(recorded), size)]

    def curves() -> list[float]:
        args = proposals.Args(env=env, scale=scale)
        rates = proposals.propose(args, config, LAWS / f"{env}-{scale}.json")
        return [float(np.float32(x)) for _, curve in rates for x in curve]

    published = [float(x) for run in groups[0] for x in run.rates]
    runs = [Run("the rule's curves", published, curves, noisy=False, always=True)]
    for number, group in enumerate(groups):
        plans = [law_runs.Plan(run.name, run.seed, run.rates) for run in group]
        runs.append(_trained(f"seeds {number}", config, env, plans, group))
    return runs


def damage_runs(path: Path) -> list[Run]:
    """Return the whole table of damage, which takes seconds."""

    def again() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            args = damage.Args(out=Path(folder) / path.name)
            return numbers(damage.main(args)["cells"])

    published = numbers(read_json(path)["cells"])
    return [Run("all cells", published, again, noisy=False)]


def optimum_runs(path: Path) -> list[Run]:
    """Return the exact optimum, and the learners."""
    result = read_json(path)
    args = optimum.Args()

    def again(name: str, seed: int) -> list[float]:
        law = optimum.noiseless(packaged_law(args.env, args.scale))
        interval = law.training.max_iters // args.decisions
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "law.json"
            law.save(file)
            settings = {"trainer": str(file), "eval_interval": interval}
            if name == "optimum":
                loss, actions = optimum.optimum(settings, args.decisions)
                return [loss, *map(float, actions)]
            agent = optimum.makers(args)[name](seed)
            learned = optimum.learn(agent, seed, settings, args.episodes)
            return [learned["final_val_loss"]]

    found = numbers([result["optimum"]["final_val_loss"], result["optimum"]["actions"]])
    runs = [Run("optimum", found, partial(again, "optimum", 0), noisy=False)]
    for name, learners in result["agents"].items():
        for seed, learner in enumerate(learners):
            runs.append(
                Run(
                    f"{name} {seed}",
                    [learner["final_val_loss"]],
                    partial(again, name, seed),
                    learner["seconds"],
                )
            )
    return runs


def exploit_runs(path: Path) -> list[Run]:
    """Return the policies of `exploit.py`: final losses of simulated and real runs."""
    result = read_json(path)
    args = exploit.Args()

    def again(name: str) -> list[float]:
        policy, settings = exploit.policies(args)[name]()
        losses = {
            trainer: exploit.final_losses(
                args, policy, range(count), trainer, **settings
            )["final_val_loss"]
            for trainer, count in (("real", args.seeds), ("surrogate", 20 * args.seeds))
        }
        return numbers(losses)

    return [
        Run(
            name,
            numbers({k: v["final_val_loss"] for k, v in policy.items()}),
            partial(again, name),
            60.0 if name.startswith("PPO") else 20.0,
        )
        for name, policy in result["policies"].items()
    ]
