"""Record real runs under an agent, and fit the law of the loss again with them.

An agent that learns on the simulator exploits the law's errors. The real runs of that
agent lie where the errors matter most, so the law is fitted to them as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.agent import Agent, make_envs, run_population
from lr_gym import LossLaw, fit_surrogate, load_corpus, preset
from lr_gym.envs.episodes import EpisodeBatch
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.replay import predict
from lr_gym.surrogate.runs import RecordedRun, load_runs, undone_chunks
from lr_gym.trainers.base import FloatArray


def record_runs(
    make: Callable[[int], Agent],
    corpus: str,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    **settings: Any,
) -> list[RecordedRun]:
    """Return one run per seed under an agent, trained as one population.

    Args:
        make: Returns the agent of a run's seed; it does not learn from the run.
        corpus: As of `TrainingConfig`.
        seeds: Seeds of the runs.
        learning_rates: Initial learning rates.
        **settings: Further keywords of `gym.make`; the agent's settings override them.
    """
    agents = [make(seed) for seed in seeds]
    envs = make_envs(corpus, len(seeds), **{**settings, **agents[0].settings})
    measured = []  # after every decision: (E,) each

    def measure() -> None:
        telemetry = envs.trainer.telemetry()
        measured.append(
            (telemetry["grad_norm"].copy(), telemetry["update_size"].copy())
        )

    trajectories = run_population(
        envs, agents, seeds, learning_rates, learning=False, on_step=measure
    )
    telemetry = np.array(measured)  # (decisions, 2, E)
    return [
        _recorded_run(envs.episodes, seed, trajectory, telemetry[:, :, member])
        for member, (seed, trajectory) in enumerate(
            zip(seeds, trajectories, strict=True)
        )
    ]


def _recorded_run(
    episodes: EpisodeBatch,
    seed: int,
    trajectory: list[dict[str, Any]],
    telemetry: FloatArray,
) -> RecordedRun:
    """Return one run; beyond the end of a diverged one its curves are NaN."""
    training, config = episodes.training, episodes.config
    steps = trajectory[1:]
    missing = len(episodes.points[0]) - len(steps)  # 0 unless the run diverged
    points = np.concatenate([[0], episodes.points[0]])
    curves = np.full((4, len(points)), np.nan)
    for point, info in enumerate(trajectory):
        if not info["diverged"]:
            curves[0, point] = info["val_loss"]
    for point, info in enumerate(steps, start=1):
        curves[1, point] = info["train_loss"]
    curves[2:, 1 : len(steps) + 1] = telemetry[: len(steps)].T
    rates = np.array([info["learning_rate"] for info in steps])
    rates = np.concatenate([rates, np.full(missing, rates[-1])])
    factors = schedule_factor(
        config.base_schedule,
        np.arange(training.max_iters),
        training.max_iters,
        training.warmup_iters,
    )
    undone = [info["action"] == config.undo_action for info in steps]
    return RecordedRun(
        name=f"rollout {seed}",
        seed=seed,
        rates=np.repeat(rates, np.diff(points)) * factors,
        iterations=points,
        val_loss=curves[0],
        train_loss=curves[1],
        grad_norm=curves[2],
        update_size=curves[3],
        undone=np.array([False, *undone, *[False] * missing]),
    )


def refit_law(
    corpus: str, scale: str, fitted_on: Path, rollouts: Sequence[RecordedRun]
) -> LossLaw:
    """Fit the law to the runs of `benchmarks/surrogate/fitting.py` and to `rollouts`.

    Args:
        corpus: As of `TrainingConfig`.
        scale: The preset.
        fitted_on: Folder of ``{corpus}-{scale}-fit.npz``.
        rollouts: Runs of the preset's length, evaluated at the same iterations.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The runs do not fit together.
    """
    runs = load_runs(fitted_on / f"{corpus}-{scale}-fit.npz")
    floor = load_corpus(corpus).entropy_rate
    return fit_surrogate([*runs, *rollouts], preset(scale, corpus), entropy_rate=floor)


def final_errors(law: LossLaw, runs: Sequence[RecordedRun]) -> FloatArray:
    """Return |predicted - real| final loss of the runs that did not diverge, nats."""
    finished = [run for run in runs if np.isfinite(run.val_loss[-1])]
    if not finished:
        return np.zeros(0)
    rates = np.stack([run.rates for run in finished])
    undone = undone_chunks(finished)
    losses, _ = predict(law.constants, rates, finished[0].iterations, undone=undone)
    real = np.array([run.val_loss[-1] for run in finished])
    return np.asarray(np.abs(losses[:, -1] - real))
