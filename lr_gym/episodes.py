"""Episodes over a trainer: what both faces, single and vector, do at a decision.

Follow `learning_rate` here: action -> the agent's rate -> the base schedule, per
iteration -> the trainer, whose optimizer uses exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym import mdp
from lr_gym.config import (
    TrainingConfig,
    check_integer,
    check_keywords,
    check_real,
    field_names,
    preset,
)
from lr_gym.corpora import Corpus, load_corpus
from lr_gym.devices import check_scale, resolve_scale
from lr_gym.mdp import EpisodeState, MDPConfig
from lr_gym.schedules import schedule_factor
from lr_gym.sharding import ShardedTrainer
from lr_gym.surrogate import SurrogateTrainer
from lr_gym.trainer import FloatArray, Trainer
from lr_gym.trainer_choice import (
    REAL,
    TrainerChoice,
    check_law_covers,
    check_trainer,
    find_law,
)
from lr_gym.training import PopulationTrainer

INFO_KEYS = (
    "iteration",
    "tokens",
    "train_loss",
    "val_loss",
    "best_val_loss",
    "learning_rate",
    "optimizer_lr",
    "progress",
    "diverged",
    "seed",
)


class Episodes:
    """E episodes over one population; members start and end on their own."""

    def __init__(
        self,
        trainer: Trainer,
        training: TrainingConfig,
        config: MDPConfig,
        entropy_rate: float | None = None,
    ) -> None:
        """Join a trainer to a decision process; every episode still has to be reset.

        Args:
            trainer: The population.
            training: Budget, interval, warm-up and initial learning rate.
            config: The decision process.
            entropy_rate: The corpus' known floor of the loss, nats per character.

        Raises:
            ValueError: The initial learning rate is outside [`min_lr`, `max_lr`].
        """
        self.trainer = trainer
        self.training = training
        self.config = config
        self.points = mdp.decision_points(
            config, training.max_iters, training.eval_interval
        )
        self.check_learning_rate(training.learning_rate)
        floor = entropy_rate if config.loss_floor is None else config.loss_floor
        self.loss_floor = 0.0 if floor is None else floor
        self.bounds = mdp.observation_bounds(config)
        self.state = EpisodeState.empty(trainer.size)
        self.seeds = np.zeros(trainer.size, dtype=np.int64)
        self.optimizer_lr: FloatArray = np.zeros(trainer.size)
        self._all = np.arange(trainer.size)
        watched = ("grad_norm", "update_ratio")
        self._watched = [name for name in watched if name in config.features]
        self._before_chunk: dict[int, Mapping[str, Any]] = {}  # only with allow_undo

    @property
    def decisions(self) -> int:
        """Decisions in an episode that does not diverge."""
        return len(self.points)

    def check_learning_rate(self, value: object) -> None:
        """Raise unless `value` is an initial rate that the agent could reach."""
        low, high = self.config.min_lr, self.config.max_lr
        check_real("learning_rate", value, 0.0, low_open=True)
        if not low <= float(value) <= high:  # type: ignore[arg-type]  # just checked
            raise ValueError(
                f"learning_rate must be in [min_lr, max_lr] = [{low:g}, {high:g}], got "
                f"{value!r}; pass a wider min_lr or max_lr as well"
            )

    def begin(
        self,
        members: Sequence[int],
        generators: Sequence[np.random.Generator],
        options: Mapping[str, Any],
    ) -> None:
        """Start new episodes of `members`, as `reset` of both faces does.

        Args:
            members: Who starts.
            generators: One per member; a run's seed is drawn from it, also where an
                option overrides it, so that the next run is the same either way.
            options: ``seed``, the runs' own, and ``learning_rate``, the initial ones:
                a value, or one per member.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: An option is out of range, or a length does not fit.
        """
        check_keywords("reset(options=...)", options, ("seed", "learning_rate"))
        seeds = [int(generator.integers(2**31)) for generator in generators]
        if "seed" in options:
            seeds = _per_member("seed", options["seed"], len(members))
            for seed in seeds:
                check_integer("seed", seed, 0, 2**63 - 1)
        rate = options.get("learning_rate", self.training.learning_rate)
        rates = _per_member("learning_rate", rate, len(members))
        for value in rates:
            self.check_learning_rate(value)
        self.reset(members, [int(s) for s in seeds], np.array(rates, dtype=float))

    def reset(
        self, members: Sequence[int], seeds: Sequence[int], learning_rates: FloatArray
    ) -> None:
        """Start new episodes of `members`, one seed and initial rate each."""
        rows = list(members)
        self.trainer.reset(rows, seeds)
        loss = self.trainer.evaluate(members=rows)
        state = self.state
        for name in ("decision", "iteration", "grad_norm", "update_ratio"):
            getattr(state, name)[rows] = 0
        for name in ("initial_loss", "val_loss", "previous_loss"):
            getattr(state, name)[rows] = loss
        for name in ("best_val_loss", "train_loss"):
            getattr(state, name)[rows] = loss
        state.learning_rate[rows] = learning_rates
        state.episode_return[rows] = 0.0
        state.diverged[rows] = False
        state.terminated[rows] = False
        self.seeds[rows] = seeds
        self.optimizer_lr[rows] = 0.0
        if self.config.allow_undo:
            for member in rows:
                self._before_chunk[member] = self.trainer.snapshot([member])

    def step(
        self,
        actions: NDArray[Any],
        members: Sequence[int] | None = None,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Take one decision for each of `members`, train, evaluate; return rewards.

        Args:
            actions: (E,) valid actions; those of other members are ignored.
            members: Who decides, none of them terminated; `None` is everybody.
            on_iteration: Called after every update.

        Returns:
            Rewards, (E,); 0 for members that did not decide.
        """
        state, config = self.state, self.config
        size = self.trainer.size
        everybody = members is None or len(members) == size
        rows = self._all if everybody else np.asarray(members)
        acting = _Choice(None if everybody else np.isin(self._all, rows))

        rates = mdp.next_learning_rate(config, state.learning_rate, actions)
        state.learning_rate = acting.choose(rates, state.learning_rate)
        if config.allow_undo:
            self._undo_and_keep(rows, actions)

        chunk = self.points[state.decision % self.decisions]
        counts = acting.choose(chunk - state.iteration, 0)
        train_loss = self.trainer.train(counts, self._plan(counts), on_iteration)
        if everybody:
            val_loss = self.trainer.evaluate()
        else:
            val_loss = np.zeros(size)
            val_loss[rows] = self.trainer.evaluate(members=rows.tolist())

        state.iteration += counts
        state.decision += acting.choose(1, 0)
        return self._settle(acting, train_loss, val_loss)

    def observe(self) -> NDArray[np.float32]:
        """Return the observations, (E, features) float32."""
        return mdp.observe(
            self.state,
            self.config,
            self.training.max_iters,
            self.loss_floor,
            self.bounds,
        )

    def info(self) -> dict[str, NDArray[Any]]:
        """Return what Gymnasium calls info: `INFO_KEYS`, each of shape (E,)."""
        state = self.state
        known = {
            "tokens": self.trainer.telemetry()["tokens"].astype(np.int64),
            "optimizer_lr": self.optimizer_lr,
            "progress": state.iteration / self.training.max_iters,
            "seed": self.seeds,
        }
        return {
            key: known[key] if key in known else getattr(state, key).copy()
            for key in INFO_KEYS
        }

    def _undo_and_keep(self, rows: NDArray[np.int64], actions: NDArray[Any]) -> None:
        """Put back those that undo; then remember everybody for the next undo."""
        for member in rows:
            if actions[member] == self.config.undo_action:
                self.trainer.restore([member], self._before_chunk[member], rewind=False)
            self._before_chunk[member] = self.trainer.snapshot([member])

    def _plan(self, counts: NDArray[np.int64]) -> FloatArray:
        """Return the learning rates of the coming chunk.

        (E, n), one per update, or (E,) where every member's rate is constant: after
        the warm-up of the ``constant`` schedule, whose factor is then exactly 1.
        """
        state = self.state
        if (
            self.config.base_schedule == "constant"
            and (state.iteration[counts > 0] >= self.training.warmup_iters).all()
        ):
            self.optimizer_lr = np.where(
                counts > 0, state.learning_rate, self.optimizer_lr
            )
            return state.learning_rate
        steps = np.arange(max(1, counts.max()))
        factors = schedule_factor(
            self.config.base_schedule,
            state.iteration[:, None] + steps,
            self.training.max_iters,
            self.training.warmup_iters,
        )
        plan = state.learning_rate[:, None] * factors
        last = plan[np.arange(len(plan)), np.maximum(counts - 1, 0)]
        self.optimizer_lr = np.where(counts > 0, last, self.optimizer_lr)
        return plan

    def _settle(
        self, acting: _Choice, train_loss: FloatArray, val_loss: FloatArray
    ) -> FloatArray:
        """Book the outcome of a chunk into the state; return the rewards, (E,)."""
        state, config = self.state, self.config
        ceiling = mdp.divergence_loss(state, config)
        with np.errstate(invalid="ignore"):
            exploded = ~(np.isfinite(val_loss) & (val_loss <= ceiling))
        diverged = acting.choose(exploded | self.trainer.diverged(), False)
        ended = acting.choose(diverged | (state.decision == self.decisions), False)
        if diverged.any():
            # Reported as the ceiling: finite, and above any survivor's loss.
            val_loss = np.where(diverged, ceiling, val_loss)
            train_loss = np.where(diverged, np.fmin(train_loss, ceiling), train_loss)
        telemetry = self.trainer.telemetry() if self._watched else {}
        state.previous_loss = acting.choose(state.val_loss, state.previous_loss)
        state.val_loss = acting.choose(val_loss, state.val_loss)
        state.train_loss = acting.choose(train_loss, state.train_loss)
        for name in self._watched:
            measured = telemetry[name]
            if not np.isfinite(measured).all():
                measured = np.nan_to_num(measured, nan=mdp.LOSS_BOUND)
            setattr(state, name, acting.choose(measured, getattr(state, name)))

        rewards = acting.choose(mdp.survivor_reward(state, config, ended), 0.0)
        if diverged.any():
            penalty = mdp.divergence_reward(state, config, self.decisions)
            rewards = np.where(diverged, penalty, rewards)
        state.episode_return += rewards
        state.best_val_loss = np.where(
            acting.choose(~diverged, False),
            np.minimum(state.best_val_loss, val_loss),
            state.best_val_loss,
        )
        state.diverged = acting.choose(diverged, state.diverged)
        state.terminated = acting.choose(ended, state.terminated)
        return rewards


@dataclass(frozen=True)
class _Choice:
    """Which members decide: a mask (E,), or `None` for everybody, which costs less."""

    mask: NDArray[np.bool_] | None

    def choose(self, chosen: ArrayLike, other: ArrayLike) -> NDArray[Any]:
        """Return `chosen` for the members that decide, `other` for the rest."""
        if self.mask is None:
            return np.array(chosen)
        return np.where(self.mask, chosen, other)


def _per_member(name: str, value: object, count: int) -> list[Any]:
    """Return `value` once per member; a sequence must already be that long."""
    if not isinstance(value, list | tuple | np.ndarray):
        return [value] * count
    values = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must have {count} entries, got {len(values)}")
    return values


def read_settings(
    scale: str, corpus: str, settings: Mapping[str, Any]
) -> tuple[TrainingConfig, MDPConfig, Corpus]:
    """Return what keywords of `gym.make` mean; errors as of `build_episodes`."""
    training, config = _read_configs(scale, corpus, settings)
    text = load_corpus(corpus, test_fraction=training.test_fraction)
    return training, config, text


def _read_configs(
    scale: str, corpus: str, settings: Mapping[str, Any]
) -> tuple[TrainingConfig, MDPConfig]:
    of_training, of_mdp = field_names(TrainingConfig), field_names(MDPConfig)
    check_keywords("LRTuningEnv", settings, of_training + of_mdp)
    training = preset(
        scale, corpus, **{k: v for k, v in settings.items() if k in of_training}
    )
    return training, MDPConfig(**{k: v for k, v in settings.items() if k in of_mdp})


def build_episodes(
    size: int,
    *,
    scale: str,
    corpus: str | None,
    trainer: TrainerChoice = REAL,
    workers: int = 1,
    stacklevel: int = 2,
    **settings: Any,
) -> Episodes:
    """Return `size` episodes, from the keywords of `gym.make`.

    Args:
        size: E, the number of members.
        scale: ``auto`` or a preset.
        corpus: A built-in corpus or a text file's path; `None` is the law's own with a
            law, else ``markov``.
        trainer: ``real``, ``surrogate``, the path of a law's JSON file, a `LossLaw`, or
            an object with the methods of `Trainer` and E members.
        workers: Processes to share the members out to; 1 trains in this one.
        stacklevel: Whom warnings point at.
        **settings: Fields of `TrainingConfig` and `MDPConfig`.

    Raises:
        TypeError: A keyword is unknown, or a value has the wrong type.
        ValueError: A value is out of range, or there is no law for the task.
        FileNotFoundError: The corpus or the law's file is absent.
    """
    check_scale(scale)
    check_integer("workers", workers, 1)
    if trainer != REAL:
        if workers > 1:
            raise ValueError(f"workers are for real training, got trainer={trainer!r}")
        return _build_without_text(size, scale, corpus, trainer, settings)
    scale = resolve_scale(scale, settings.get("device", "auto"), stacklevel + 1)
    training, config, text = read_settings(scale, corpus or "markov", settings)
    population: Trainer = (
        PopulationTrainer(training, text, size)
        if workers == 1
        else ShardedTrainer(training, text, size, workers)
    )
    return Episodes(population, training, config, text.entropy_rate)


def _build_without_text(
    size: int,
    scale: str,
    corpus: str | None,
    trainer: TrainerChoice,
    settings: Mapping[str, Any],
) -> Episodes:
    """Return episodes over a law, or over a trainer of the caller's own."""
    law = find_law(trainer, scale, corpus)
    if law is not None:
        asked = {"learning_rate": law.training.learning_rate, **settings}
        training, config = _read_configs(law.training.scale, law.training.corpus, asked)
        check_law_covers(law, training)
        return Episodes(SurrogateTrainer(law, size), training, config, law.entropy_rate)
    rest = {k: v for k, v in settings.items() if k not in field_names(MDPConfig)}
    check_trainer(trainer, size, rest)
    if scale != "auto":
        raise ValueError(f"scale is for lr-gym's own training, got scale={scale!r}")
    training, config = _read_configs("mini", corpus or "own", settings)
    return Episodes(cast(Trainer, trainer), training, config)
