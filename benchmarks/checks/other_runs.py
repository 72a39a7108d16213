"""Runs of the other results: simulated training, sweeps, users' loops, learners."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents import train_controller
from agents.agent import Agent
from agents.baselines import RampAndUndoAgent, UpdateSizeAgent
from agents.saved_policy import saved_agent
from benchmarks.checks.runs import Run
from benchmarks.clients import stock_learners
from benchmarks.clients.recorded import recorded_id
from benchmarks.comparison.lr_matters import sweep
from benchmarks.controller import features, foreign_loops
from benchmarks.paths import RESULTS
from benchmarks.speed import precision
from benchmarks.surrogate import damage, exploit, fitting, optimum, proposals
from benchmarks.surrogate import runs as law_runs
from lr_gym import TrainingConfig, load_corpus, preset
from lr_gym.surrogate.law_files import packaged_law
from lr_gym.surrogate.runs import RecordedRun, load_runs
from lr_gym.trainers.base import FloatArray

LAWS = RESULTS / "surrogate"
LAW_CORPORA = ("markov", "shakespeare", "text8")
COLLECTED_TOGETHER = {"fit": 4, "held-out": 4, "proposals": 7}  # as the scripts do


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def numbers(content: Any) -> list[float]:  # noqa: ANN401 - any part of a JSON file
    """Return all numbers of a nested result, in order; NaN for `None`."""
    if isinstance(content, Mapping):
        return [x for name in sorted(content) for x in numbers(content[name])]
    if isinstance(content, list | tuple):
        return [x for part in content for x in numbers(part)]
    if content is None:
        return [float("nan")]
    if isinstance(content, int | float):
        return [float(content)]
    return []


# ------------------------------------------------------------------ training, sweeps


def loop_runs(path: Path) -> list[Run]:
    """Return the runs of the examples, with and without the controller."""
    result = _read(path)
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
    for key, result in _read(path).items():
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
    for key, result in _read(path).items():
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

    result = _read(path)
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


# ------------------------------------------------------------------------- simulated


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

    report = _read(path.with_name(f"{path.stem}-report.json"))
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

    published = numbers(_read(path)["cells"])
    return [Run("all cells", published, again, noisy=False)]


def optimum_runs(path: Path) -> list[Run]:
    """Return the exact optimum, and the learners."""
    result = _read(path)
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
    result = _read(path)
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


# -------------------------------------------------------------- learned controllers


def feature_runs(path: Path) -> list[Run]:
    """Return the learners of `features.py`: mean and median above the rule."""
    result = _read(path)
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

    losses = _read(folder / "report.json")["final_val_loss"]
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
    for key, result in _read(path).items():
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
