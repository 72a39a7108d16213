"""Runs of the other results: sweeps, users' loops, learners."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents import train_controller
from agents.agent import Agent
from agents.baselines import RampAndUndoAgent, UpdateSizeAgent
from agents.saved_policy import saved_agent
from benchmarks.checks.numbers import numbers, read_json
from benchmarks.checks.runs import Run
from benchmarks.clients import stock_learners
from benchmarks.clients.recorded import recorded_id
from benchmarks.comparison.lr_matters import sweep
from benchmarks.controller import features, foreign_loops
from benchmarks.controller.users import compare
from benchmarks.speed import precision
from lr_gym import TrainingConfig

Half = Literal["choosing", "judged"]
HALVES: tuple[Half, ...] = ("choosing", "judged")  # of the users' tasks

# ------------------------------------------------------------------ training, sweeps


def loop_runs(path: Path) -> list[Run]:
    """Return the runs of the examples, with and without the controller."""
    result = read_json(path)
    losses = result["final_val_loss"]
    seeds = len(losses) // len(foreign_loops.plan(1))
    again = partial(_loop_loss, iterations=result["settings"]["iterations"])
    return [
        Run(run.key, [losses[run.key]], partial(again, run), 10.0)
        for run in foreign_loops.plan(seeds)
    ]


def _loop_loss(run: foreign_loops.Run, iterations: int) -> list[float]:
    return [foreign_loops.final_loss(run, iterations)]


def _first_seed(config: TrainingConfig, rates: list[float]) -> list[float]:
    return numbers(sweep(config, rates, 1)["final_val_loss"][0])


def sweep_runs(path: Path) -> list[Run]:
    """Return the sweeps of constant learning rates in a file; of each the first seed.

    `None` marks a diverged run. Trainings are in the file as they were configured.
    """
    sweeps: dict[str, dict[str, Any]] = {}
    for key, result in read_json(path).items():
        if "learning_rates" in result and "config" not in result:  # per architecture
            for name, one in result["learning_rates"].items():
                sweeps[f"{key} {name}"] = one
        else:
            sweeps[key] = result
    runs = []
    for key, result in sweeps.items():
        config, rates = TrainingConfig(**result["config"]), result["learning_rates"]
        published = numbers(result["final_val_loss"][0])
        seconds = len(rates) * (5.0 if config.scale == "tiny" else 40.0)
        runs.append(Run(key, published, partial(_first_seed, config, rates), seconds))
    return runs


def precision_runs(path: Path) -> list[Run]:
    """Return the paired runs of `precision.py`, one per corpus, scale and fast path."""
    runs = []
    for key, result in read_json(path).items():
        env, scale, fast, mode = key.split("-")
        args = precision.Args(env=env, scale=scale, precision=fast, compile=mode)
        published = numbers(result["final_val_loss"])
        seconds = 100.0 if scale == "tiny" else 900.0
        runs.append(Run(key, published, partial(_paired_losses, args), seconds))
    return runs


def _paired_losses(args: precision.Args) -> list[float]:
    return numbers(precision.compare(args)["final_val_loss"])


def population_runs(path: Path) -> list[Run]:
    """Return the seeds of `ppo_population.py`: mean returns of both learners."""
    from benchmarks.speed import ppo_population  # needs stable-baselines3

    result = read_json(path)
    fields = {key: value for key, value in result["args"].items() if key != "out"}
    args = ppo_population.Args(**fields)

    def returns(curves: dict[str, Any]) -> list[float]:
        return [x for name in sorted(curves) for x in curves[name]["mean_return"]]

    def again(seed: int) -> list[float]:
        return returns(ppo_population.train(args, seed))

    return [
        Run(
            f"seed {seed}",
            returns(curves),
            partial(again, seed),
            sum(sum(curve["seconds"]) for curve in curves.values()),
        )
        for seed, curves in enumerate(result["runs"])
    ]


def user_runs(folder: Path) -> list[Run]:
    """Return the runs of the users' tasks that a method applies to and that ended."""
    runs = []
    for half in HALVES:
        path = folder / f"{half}.json"
        losses = read_json(path)["final_loss"] if path.is_file() else {}
        for case in compare.plan(compare.Args(tasks=half, seeds=5)):
            loss = losses.get(case.key)
            if loss is not None:
                again = partial(_user_loss, half, case)
                runs.append(Run(f"{half} {case.key}", [loss], again, 3.0))
    return runs


def _user_loss(half: Half, case: compare.Case) -> list[float]:
    loss = compare.final_loss(half, case)
    return [float("nan") if loss is None else loss]


# -------------------------------------------------------------- learned controllers


def feature_runs(path: Path) -> list[Run]:
    """Return the learners of `features.py`: mean and median above the rule."""
    result = read_json(path)
    variants = {variant.name: variant for variant in features.VARIANTS}
    args = features.Args()

    def again(name: str, seed: int) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            options = features.Args(jobs=Path(folder))
            learned = features.run(variants[name], seed, options)["final_val_loss"]
        rule = train_controller.final_losses(
            UpdateSizeAgent,
            "surrogate",
            args.checks,
            train_controller.Args(scale=args.scale),
        )
        gap = np.array(learned) - rule
        return [float(gap.mean()), float(np.median(gap))]

    return [
        Run(
            f"{name}, learner {seed}",
            [variant["above_rule"][seed], variant["median_above_rule"][seed]],
            partial(again, name, seed),
            variant["seconds"][seed],
        )
        for name, variant in result["variants"].items()
        for seed in range(len(variant["seconds"]))
    ]


def policy_runs(folder: Path) -> list[Run]:
    """Return the evaluations of the learned controller and of the rules beside it.

    The policy itself is not learned again.
    """
    makers: dict[str, Callable[[int], Agent]] = {
        "controller": partial(saved_agent, folder / "policy.safetensors"),
        "ramp_and_undo": RampAndUndoAgent,
        "update_size": UpdateSizeAgent,
        "keep": train_controller.Keep,
    }
    args = train_controller.Args()

    def again(name: str, trainer: str, count: int) -> list[float]:
        losses = train_controller.final_losses(makers[name], trainer, count, args)
        return numbers(losses.tolist())

    losses = read_json(folder / "report.json")["final_val_loss"]
    return [
        Run(
            f"{name}, {trainer}",
            by_name[name],
            partial(again, name, trainer, len(by_name[name])),
            60.0 if trainer == "real" else 5.0,
        )
        for trainer, by_name in losses.items()
        for name in makers
    ]


def learner_runs(path: Path) -> list[Run]:
    """Return the runs of stable-baselines3's learners in simulated training."""
    runs = []
    for key, result in read_json(path).items():
        kind, learner, observation = [*key.split(), ""][:3]
        if kind != "sim" or not learner.startswith("sb3"):
            continue  # CleanRL's need a checkout
        for seed, run in result["runs"].items():
            again = partial(
                _last_return, learner, observation, result["decisions"], int(seed)
            )
            published = [float(run["last_return"])]
            name = f"{learner} {observation} {seed}"
            runs.append(Run(name, published, again, float(run["cpu_seconds"])))
    return runs


def _last_return(
    learner: str, observation: str, decisions: int, seed: int
) -> list[float]:
    env_id = recorded_id("Sim", observation)
    result = stock_learners.run(learner, env_id, decisions, seed, Path())
    return [float(result["last_return"])]
