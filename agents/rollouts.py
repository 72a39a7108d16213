"""Real runs under an agent, recorded, and the law fitted again with them.

A simulator is exploited where it is wrong, and a learner goes where it promises most.
Its own runs are therefore what the law most needs to have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.agent import Agent, run_population
from lr_gym import LossLaw, fit_surrogate, load_corpus, preset
from lr_gym.envs.episodes import EpisodeBatch
from lr_gym.envs.factory import build_episodes
from lr_gym.schedules import schedule_factor
from lr_gym.surrogate.law import predict
from lr_gym.surrogate.runs import RecordedRun, load_runs, undone_chunks
from lr_gym.trainers.base import FloatArray


def record_runs(
    make: Callable[[int], Agent],
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    **settings: Any,
) -> list[RecordedRun]:
    """Return real runs under an agent, side by side, one per seed.

    Args:
        make: Returns the agent of a run's seed; it does not learn from the run.
        seeds: Of the runs.
        learning_rates: Initial ones.
        **settings: Keywords of `gym.make`, `scale` and `corpus` among them; the
            agent's own win.
    """
    agents = [make(seed) for seed in seeds]
    episodes = build_episodes(len(seeds), **{**settings, **agents[0].settings})
    measured = []  # after every decision: (E,) each

    def measure() -> None:
        found = episodes.trainer.telemetry()
        measured.append((found["grad_norm"].copy(), found["update_size"].copy()))

    runs = run_population(
        episodes, agents, seeds, learning_rates, learning=False, on_step=measure
    )
    telemetry = np.array(measured)  # (decisions, 2, E)
    return [
        _recorded(episodes, seed, rows, telemetry[:, :, member])
        for member, (seed, rows) in enumerate(zip(seeds, runs, strict=True))
    ]


def _recorded(
    episodes: EpisodeBatch, seed: int, rows: list[dict[str, Any]], telemetry: FloatArray
) -> RecordedRun:
    """Return one run; what a diverged one did not come to is not a number."""
    training, config = episodes.training, episodes.config
    taken = rows[1:]
    length = len(taken)
    points = np.concatenate([[0], episodes.points[0]])
    curves = np.full((4, len(points)), np.nan)
    for place, row in enumerate(rows):
        if not row["diverged"]:
            curves[0, place] = row["val_loss"]
    for place, row in enumerate(taken, start=1):
        curves[1, place] = row["train_loss"]
    curves[2:, 1 : length + 1] = telemetry[:length].T
    rates = np.array([row["learning_rate"] for row in taken])
    # A diverged run is over: its last rate fills the rest.
    rates = np.concatenate([rates, np.full(len(points) - 1 - length, rates[-1])])
    factors = schedule_factor(
        config.base_schedule,
        np.arange(training.max_iters),
        training.max_iters,
        training.warmup_iters,
    )
    undone = [row["action"] == config.undo_action for row in taken]
    return RecordedRun(
        name=f"rollout {seed}",
        seed=seed,
        rates=np.repeat(rates, np.diff(points)) * factors,
        iterations=points,
        val_loss=curves[0],
        train_loss=curves[1],
        grad_norm=curves[2],
        update_size=curves[3],
        undone=np.array([False, *undone, *[False] * (len(points) - 1 - length)]),
    )


def refitted(
    corpus: str, scale: str, fitted_on: Path, rollouts: Sequence[RecordedRun]
) -> LossLaw:
    """Return the law of what `surrogate/fitting.py` recorded, and of `rollouts`.

    Args:
        corpus: As of `TrainingConfig`.
        scale: The preset.
        fitted_on: Folder of ``{corpus}-{scale}-fit.npz``.
        rollouts: Of the preset's length, evaluated at the same iterations.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The runs do not fit together.
    """
    runs = load_runs(fitted_on / f"{corpus}-{scale}-fit.npz")
    floor = load_corpus(corpus).entropy_rate
    return fit_surrogate([*runs, *rollouts], preset(scale, corpus), entropy_rate=floor)


def final_errors(law: LossLaw, runs: Sequence[RecordedRun]) -> FloatArray:
    """Return |predicted - real| final loss of runs that did not diverge, nats."""
    alive = [run for run in runs if np.isfinite(run.val_loss[-1])]
    if not alive:
        return np.zeros(0)
    rates = np.stack([run.rates for run in alive])
    undone = undone_chunks(alive)
    losses, _ = predict(law.constants, rates, alive[0].iterations, undone=undone)
    real = np.array([run.val_loss[-1] for run in alive])
    return np.asarray(np.abs(losses[:, -1] - real))
