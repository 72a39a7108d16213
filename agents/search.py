"""Agents that search over schedules before the test, or over actions during the run."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.agent import (
    Agent,
    AnyEnv,
    LREnv,
    Observation,
    episodes_of,
    make_population,
    run_population,
)
from agents.replay import OpenLoop
from lr_gym.envs.episodes import EpisodeBatch

# The range of initial learning rates, as multiples of the task's.
MIN_MULTIPLE, MAX_MULTIPLE = 1 / 8, 16.0
LOG_RANGE = math.log(MIN_MULTIPLE), math.log(MAX_MULTIPLE)
TOP = 3  # candidates of `RandomSearch` that are run again on further seeds


class RandomSearch(OpenLoop):
    """Tries random schedules, repeats the best three, and follows the best of them.

    A schedule holds a log-uniform peak for 0 to 90 % of the run and then decays to zero
    as a power (1/2, 1 or 2) of the time left. At least half of the runs explore; the
    rest repeat the best three on two further seeds.
    """

    def __init__(self, seed: int = 0) -> None:
        """Seed the search."""
        self._random = np.random.default_rng(seed)

    def train(self, env: LREnv, episodes: int) -> None:
        """Spend `episodes` runs, at least one."""
        decisions = episodes_of(env).decisions
        rate = episodes_of(env).training.learning_rate
        repeats = 2 * TOP if episodes >= 4 * TOP else 0
        curves = [
            self._sample_curve(rate, decisions) for _ in range(episodes - repeats)
        ]
        losses = [[loss] for loss in self._try(env, curves)]
        self.history = tuple(loss for [loss] in losses)
        best = sorted(range(len(curves)), key=lambda i: losses[i][0])[:TOP]
        if repeats:
            for index, loss in zip(
                2 * best, self._try(env, 2 * [curves[i] for i in best]), strict=True
            ):
                losses[index].append(loss)
            best.sort(key=lambda i: float(np.mean(losses[i])))
        self.follow(curves[best[0]])
        self.training_episodes = episodes

    def _sample_curve(self, rate: float, decisions: int) -> list[float]:
        """Return a random schedule: one learning rate per decision."""
        peak = rate * math.exp(self._random.uniform(*LOG_RANGE))
        hold = self._random.uniform(0.0, 0.9)
        power = self._random.choice([0.5, 1.0, 2.0])
        middle = (np.arange(decisions) + 0.5) / decisions
        left = np.clip((1.0 - middle) / (1.0 - hold), 0.0, 1.0)
        return [float(value) for value in peak * left**power]

    def _try(self, env: LREnv, curves: list[list[float]]) -> list[float]:
        """Return the final validation losses of one fresh run per curve."""
        trajectories = run_population(
            make_population(env, len(curves)),
            [OpenLoop(curve) for curve in curves],
            _seeds(self._random, len(curves)),
            [curve[0] for curve in curves],
        )
        return [float(trajectory[-1]["val_loss"]) for trajectory in trajectories]


class PopulationBased(OpenLoop):
    """Population based training (Jaderberg et al. 2017); then replays its schedule.

    Members start at log-uniform rates. At every decision the worst quarter copies
    weights, optimizer and rate of the best quarter and multiplies the rate by 0.8 or
    1.25. The rates that led to the best final member are the schedule that the agent
    follows in later runs.
    """

    def __init__(self, seed: int = 0, size: int = 8) -> None:
        """Seed the search over populations of `size`."""
        self._random = np.random.default_rng(seed)
        self.size = size

    def train(self, env: LREnv, episodes: int) -> None:
        """Spend `episodes` runs on populations of `size`; keep the best schedule."""
        best_loss, best_curve = math.inf, [episodes_of(env).training.learning_rate]
        sizes = [self.size] * (episodes // self.size)
        if episodes % self.size:
            sizes.append(episodes % self.size)
        for size in sizes:
            loss, curve = self._evolve(make_population(env, size).episodes)
            if loss < best_loss:
                best_loss, best_curve = loss, curve
        self.follow(best_curve)
        self.training_episodes = episodes

    def _evolve(self, population: EpisodeBatch) -> tuple[float, list[float]]:
        """Run one population; return its best final loss and the rates behind it."""
        size, random = population.trainer.size, self._random
        multiples = np.exp(random.uniform(*LOG_RANGE, size))
        rates = population.training.learning_rate * multiples
        population.reset_members(range(size), _seeds(random, size), rates)
        curves: list[list[float]] = [[] for _ in range(size)]
        steps: NDArray[np.float64] = np.zeros(size)
        while not population.state.terminated.all():
            alive = np.flatnonzero(~population.state.terminated)
            population.step(steps, alive.tolist())
            for member in alive:
                curves[member].append(float(population.state.learning_rate[member]))
            steps = self._exploit(population, alive, curves)
        losses = np.where(population.state.diverged, np.inf, population.state.val_loss)
        self.history += tuple(population.state.val_loss.tolist())
        best = int(losses.argmin())
        return float(losses[best]), curves[best]

    def _exploit(
        self, population: EpisodeBatch, alive: NDArray[Any], curves: list[list[float]]
    ) -> NDArray[np.float64]:
        """Copy the best members over the worst; return all next log2 factors, (E,)."""
        steps = np.zeros(population.trainer.size)
        alive = alive[~population.state.terminated[alive]]
        order = alive[np.argsort(population.state.val_loss[alive], kind="stable")]
        quarter = len(order) // 4
        for loser in order[len(order) - quarter :]:
            winner = int(self._random.choice(order[:quarter]))
            copied = population.trainer.snapshot([winner])
            population.trainer.restore([int(loser)], copied, rewind=False)
            for values in vars(population.state).values():
                values[loser] = values[winner]
            curves[loser] = list(curves[winner])
            steps[loser] = math.log2(self._random.choice([0.8, 1.25]))
        return steps


class Lookahead(Agent):
    """Tries every action on the run itself, restores the run, and takes the best.

    The oracle of short-horizon control: no agent that looks one decision ahead does
    better. A run costs one training per action and one more. It restores the trainer,
    so it runs alone.
    """

    def __init__(self, seed: int = 0) -> None:
        """`seed` is unused."""

    def begin(self, env: AnyEnv) -> None:
        """Keep a reference to the run.

        Raises:
            ValueError: The population has more than one member.
        """
        super().begin(env)
        episodes = episodes_of(env)
        if episodes.trainer.size != 1:
            raise ValueError(
                f"lookahead runs alone, got a population of {episodes.trainer.size}"
            )
        self._episodes = episodes

    def act(self, observation: Observation) -> int:
        """Return the action with the lowest validation loss after the next chunk."""
        run = self._episodes
        before, state = run.trainer.snapshot([0]), copy.deepcopy(run.state)
        losses = []
        for action in range(len(run.config.lr_factors)):
            run.step(np.array([action]))
            losses.append(float(run.state.val_loss[0]))
            run.trainer.restore([0], before)
            run.state = copy.deepcopy(state)
        return int(np.argmin(losses))


def _seeds(random: np.random.Generator, count: int) -> list[int]:
    return [int(seed) for seed in random.integers(2**31, size=count)]
