"""Agents that search: over schedules beforehand, or over actions as the run goes.

All use nothing but the environment: its populations, its learning rates, its snapshots.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.agent import Agent, LREnv, Observation, episodes_of, make_population
from agents.replay import OpenLoop
from lr_gym.envs.episodes import EpisodeBatch

# Initial learning rates searched, as multiples of the task's own.
LEAST, MOST = 1 / 8, 16.0
TOP = 3  # candidates of `RandomSearch` that are run again on further seeds


class RandomSearch(OpenLoop):
    """Tries random schedules, repeats the best few, and follows the best of them.

    A schedule is: a peak, log-uniform; held for a share of the run, uniform in 0 to
    90 %; then down to zero by a power of what is left, 1/2, 1 or 2. Two thirds and more
    of the runs explore, the rest repeat the best three on two further seeds.
    """

    def __init__(self, seed: int = 0) -> None:
        """Draw from the stream of `seed`; `train` finds the curve."""
        self._random = np.random.default_rng(seed)

    def train(self, env: LREnv, episodes: int) -> None:
        """Spend `episodes` runs, at least one."""
        decisions = episodes_of(env).decisions
        rate = episodes_of(env).training.learning_rate
        repeats = 2 * TOP if episodes >= 4 * TOP else 0
        curves = [self._draw(rate, decisions) for _ in range(episodes - repeats)]
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

    def _draw(self, rate: float, decisions: int) -> list[float]:
        peak = rate * math.exp(self._random.uniform(math.log(LEAST), math.log(MOST)))
        hold = self._random.uniform(0.0, 0.9)
        power = self._random.choice([0.5, 1.0, 2.0])
        middle = (np.arange(decisions) + 0.5) / decisions
        left = np.clip((1.0 - middle) / (1.0 - hold), 0.0, 1.0)
        return [float(value) for value in peak * left**power]

    def _try(self, env: LREnv, curves: list[list[float]]) -> list[float]:
        """Return the final validation losses of one fresh run per curve."""
        episodes = make_population(env, len(curves))
        first = np.array([curve[0] for curve in curves])
        episodes.reset_members(
            range(len(curves)), _seeds(self._random, len(curves)), first
        )
        agents = [OpenLoop(curve) for curve in curves]
        for agent in agents:
            agent.begin(episodes)
        while not episodes.state.terminated.all():
            alive = np.flatnonzero(~episodes.state.terminated).tolist()
            nothing = np.zeros(0, dtype=np.float32)
            steps = np.zeros(len(curves))
            for member in alive:
                steps[member] = np.asarray(agents[member].act(nothing))[0]
            episodes.step(steps, alive)
        return [float(loss) for loss in episodes.state.val_loss]


class PopulationBased(OpenLoop):
    """Population based training (Jaderberg et al. 2017), then its schedule, replayed.

    Members start at log-uniform rates. At every decision the worst quarter copies
    weights, optimizer and rate of the best quarter and perturbs the rate by 0.8 or
    1.25. The rates along the line of descent of the best final member are the schedule
    that is followed afterwards, on any run.
    """

    def __init__(self, seed: int = 0, size: int = 8) -> None:
        """Draw from the stream of `seed`; `train` finds the curve."""
        self._random = np.random.default_rng(seed)
        self.size = size

    def train(self, env: LREnv, episodes: int) -> None:
        """Spend `episodes` runs on populations of `size`; keep the best descent."""
        best_loss, best_curve = math.inf, [episodes_of(env).training.learning_rate]
        sizes = [self.size] * (episodes // self.size)
        if episodes % self.size:
            sizes.append(episodes % self.size)
        for size in sizes:
            loss, curve = self._evolve(make_population(env, size))
            if loss < best_loss:
                best_loss, best_curve = loss, curve
        self.follow(best_curve)
        self.training_episodes = episodes

    def _evolve(self, population: EpisodeBatch) -> tuple[float, list[float]]:
        """Run one population; return its best final loss and the rates behind it."""
        size, random = population.trainer.size, self._random
        span = random.uniform(math.log(LEAST), math.log(MOST), size)
        rates = population.training.learning_rate * np.exp(span)
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
        """Copy the best over the worst; return everybody's next log2 factors."""
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
    """Tries every action on the run itself, goes back, and takes the best.

    The oracle of short-horizon control: nobody who looks one decision ahead can do
    better, and every run costs as many as there are actions, and one more. It needs the
    trainer, so it runs alone.
    """

    def __init__(self, seed: int = 0) -> None:
        """`seed` changes nothing."""

    def begin(self, episodes: EpisodeBatch) -> None:
        """Take hold of the run."""
        super().begin(episodes)
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
