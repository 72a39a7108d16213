"""Episodes over a trainer: the code that the single and the vector environment share.

Follow `learning_rate` here: action -> the agent's learning rate -> times the base
schedule at each iteration -> the trainer, and its optimizer uses exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym import mdp
from lr_gym.config import TrainingConfig
from lr_gym.envs.starts import StartSampler
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.episode_state import EpisodeState, MemberIndex
from lr_gym.mdp.instances import Instance, InstanceFamily
from lr_gym.mdp.rewards import finish_chunk
from lr_gym.schedules import schedule_factor
from lr_gym.trainers.base import FloatArray, Trainer
from lr_gym.trainers.mixed import MixedTrainer

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


class EpisodeBatch:
    """E episodes over one population. Each member starts and ends independently."""

    def __init__(
        self,
        trainer: Trainer,
        training: TrainingConfig,
        config: MDPConfig,
        entropy_rate: float | Mapping[str, float | None] | None = None,
        family: InstanceFamily | None = None,
    ) -> None:
        """Prepare E episodes; all must be reset before the first step.

        Args:
            trainer: The population, of E members.
            training: Budget, interval, warm-up and initial learning rate.
            config: The decision process.
            entropy_rate: A known lower bound of the loss on the corpus, nats per
                character. With a family: a bound for each corpus, by name.
            family: Each reset samples an instance from it; `trainer` must be a
                `MixedTrainer`. `None` repeats the run that `training` describes.

        Raises:
            TypeError: There is a family, but `trainer` is not a `MixedTrainer`.
            ValueError: An initial learning rate is outside [`min_lr`, `max_lr`], or a
                horizon is too short for the decisions.
        """
        self.trainer = trainer
        self.training = training
        self.config = config
        self.family = family
        self._starts = StartSampler(training, config, family)
        points = self._starts.points
        self.decisions = len(points)  # in an episode that does not diverge
        self._entropy_rate = entropy_rate
        self._bounds = mdp.observation_bounds(config)
        size = trainer.size
        self.points = np.tile(points, (size, 1))  # (E, decisions)
        self.max_iters = self.points[:, -1].copy()  # (E,)
        self.loss_floor: FloatArray = np.zeros(size)
        self.instances: list[Instance] = []  # one per member, with a family
        if family is None:
            self.loss_floor[:] = self._floor(training.corpus)
        else:
            self.instances = [family.instance()] * size
            self._set_instances(range(size), self.instances)
        self.state = EpisodeState.empty(size)
        self.seeds = np.zeros(size, dtype=np.int64)
        names = ("grad_norm", "update_size")
        self._telemetry_features = [name for name in names if name in config.features]
        # Each member's snapshot from before its last chunk, with allow_undo.
        self._snapshots: dict[int, Mapping[str, Any]] = {}

    @property
    def reset_options(self) -> tuple[str, ...]:
        """Names of the options of `reset`."""
        return self._starts.options

    def corpus(self, member: int) -> str:
        """Return the name of the corpus that a member trains on."""
        return (self.instances[member] if self.family else self.training).corpus

    def reset(
        self,
        members: Sequence[int],
        generators: Sequence[np.random.Generator],
        options: Mapping[str, Any],
    ) -> None:
        """Start new episodes, with the options of `LRTuningEnv.reset`.

        Args:
            members: Members to reset.
            generators: One per member; draws the run's seed. It draws even if an option
                gives the seed, so that later runs do not depend on the option.
            options: ``seed`` of the runs, their initial ``learning_rate``, and with a
                family ``instance``, fields that replace sampled ones. Each is one
                value, or one per member.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: An option is out of range, or a length does not fit.
        """
        seeds, learning_rates, instances = self._starts.sample(generators, options)
        if instances:
            self._set_instances(members, instances)
        self.reset_members(members, seeds, learning_rates)

    def reset_members(
        self, members: Sequence[int], seeds: Sequence[int], learning_rates: FloatArray
    ) -> None:
        """Start new episodes of the instances that `members` already have.

        Args:
            members: Members to reset.
            seeds: One per member.
            learning_rates: Initial learning rates, one per member.
        """
        rows = list(members)
        self.trainer.reset(rows, seeds)
        loss = self.trainer.evaluate(members=rows)
        state = self.state
        for name in ("decision", "iteration", "grad_norm", "update_size"):
            getattr(state, name)[rows] = 0
        losses = ("initial_loss", "val_loss", "previous_loss", "best_val_loss")
        for name in (*losses, "train_loss"):  # nothing was trained on yet
            getattr(state, name)[rows] = loss
        state.learning_rate[rows] = learning_rates
        state.episode_return[rows] = 0.0
        state.diverged[rows] = False
        state.terminated[rows] = False
        self.seeds[rows] = seeds
        if self.config.allow_undo:
            for member in rows:
                self._snapshots[member] = self.trainer.snapshot([member])

    @property
    def started(self) -> NDArray[np.bool_]:
        """Whether each member was ever reset, (E,)."""
        started: NDArray[np.bool_] = ~self.state.terminated | (self.state.decision > 0)
        return started

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything that the episodes depend on."""
        members = np.flatnonzero(self.started).tolist()
        return {
            "members": members,
            "trainer": self.trainer.snapshot(members),
            "state": self.state.select(slice(None)),
            "seeds": self.seeds.copy(),
            "instances": list(self.instances),
            "undo": dict(self._snapshots),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of episodes with the same settings."""
        if self.family is not None:
            self._set_instances(range(self.trainer.size), state["instances"])
        self.trainer.restore(state["members"], state["trainer"])
        self.state = state["state"].select(slice(None))
        self.seeds = state["seeds"].copy()
        self._snapshots = dict(state["undo"])  # never changed in place

    def step(
        self,
        actions: NDArray[Any],
        members: Sequence[int] | None = None,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Take one decision for each of `members`, train, evaluate; return rewards.

        Args:
            actions: (E,) or (E, `action_size`) valid actions; entries of members that
                do not decide are ignored.
            members: Members that decide, none of them terminated; `None` is all.
            on_iteration: Called after every update.

        Returns:
            Rewards, (E,); 0 for members that did not decide.
        """
        config, size = self.config, self.trainer.size
        acting = np.arange(size) if members is None else np.asarray(members)
        all_act = len(acting) == size
        index: MemberIndex = slice(None) if all_act else acting
        state = self.state.select(index)

        factors, undo = mdp.decode_actions(config, actions)
        state.learning_rate = mdp.next_learning_rate(
            config, state.learning_rate, factors[index]
        )
        self.state.learning_rate[index] = state.learning_rate
        if config.allow_undo:
            self._undo_and_snapshot(acting, undo)

        ends = self.points[np.arange(size)[index], state.decision]
        counts = np.zeros(size, dtype=np.int64)
        counts[index] = ends - state.iteration
        plan = self._plan(index, state, counts)
        train_loss = self.trainer.train(counts, plan, on_iteration)[index]
        if all_act:
            val_loss = self.trainer.evaluate()
        else:
            val_loss = self.trainer.evaluate(members=acting.tolist())

        state.iteration = ends
        state.decision = state.decision + 1
        self._read_telemetry(index, state)
        diverged = self.trainer.diverged()[index]
        rewards: FloatArray = np.zeros(size)
        rewards[index] = finish_chunk(
            state, config, self.decisions, train_loss, val_loss, diverged
        )
        self.state.assign(index, state)
        return rewards

    def observe(self) -> NDArray[np.float32]:
        """Return the observations, (E, features) float32."""
        return mdp.observe(
            self.state, self.config, self.max_iters, self.loss_floor, self._bounds
        )

    def info(self) -> dict[str, NDArray[Any]]:
        """Return the infos: `INFO_KEYS`, each of shape (E,)."""
        return {key: values.copy() for key, values in self._info_arrays().items()}

    def member_info(self, member: int) -> dict[str, Any]:
        """Return the info of one member, as plain Python numbers."""
        return {key: values.item(member) for key, values in self._info_arrays().items()}

    def _info_arrays(self) -> dict[str, NDArray[Any]]:
        """Return `INFO_KEYS`, each of shape (E,); some are arrays of the state."""
        state = self.state
        telemetry = self._telemetry(("tokens", "learning_rate"))
        return {
            "iteration": state.iteration,
            "tokens": telemetry["tokens"].astype(np.int64),
            "train_loss": state.train_loss,
            "val_loss": state.val_loss,
            "best_val_loss": state.best_val_loss,
            "learning_rate": state.learning_rate,
            "optimizer_lr": telemetry["learning_rate"],  # used, not only planned
            "progress": state.iteration / self.max_iters,
            "diverged": state.diverged,
            "seed": self.seeds,
        }

    def _set_instances(
        self, members: Sequence[int], instances: Sequence[Instance]
    ) -> None:
        """Set the model, horizon and loss floor of `members` to their instances'."""
        if not isinstance(self.trainer, MixedTrainer):
            raise TypeError(f"a family needs a MixedTrainer, got {self.trainer}")
        configs = [instance.training_config(self.training) for instance in instances]
        self.trainer.choose(members, configs)
        for member, instance in zip(members, instances, strict=True):
            self.instances[member] = instance
            self.points[member] = self._starts.decision_points(instance.max_iters)
            self.max_iters[member] = instance.max_iters
            self.loss_floor[member] = self._floor(instance.corpus)

    def _floor(self, corpus: str) -> float:
        """Return a lower bound of the loss on `corpus`, 0 if none is known."""
        if self.config.loss_floor is not None:
            return self.config.loss_floor
        rate = self._entropy_rate
        floor = rate[corpus] if isinstance(rate, Mapping) else rate
        return 0.0 if floor is None else floor

    def _undo_and_snapshot(
        self, members: NDArray[np.int64], undo: NDArray[np.bool_]
    ) -> None:
        """Restore the members that undo; then snapshot `members` for the next undo."""
        for member in members.tolist():
            if undo[member]:
                self.trainer.restore([member], self._snapshots[member], rewind=False)
            self._snapshots[member] = self.trainer.snapshot([member])

    def _plan(
        self, index: MemberIndex, state: EpisodeState, counts: NDArray[np.int64]
    ) -> FloatArray:
        """Return the learning rates of the next chunk, of `counts` updates.

        One per update, (E, n), or (E,) if all are constant: after the warm-up of the
        ``constant`` schedule, where its factor is exactly 1.
        """
        config, warmup = self.config, self.training.warmup_iters
        rates = self.state.learning_rate.copy()
        varies = config.base_schedule != "constant" or state.iteration < warmup
        if not np.any(varies):
            return rates
        scheduled = np.zeros(len(counts), dtype=np.bool_)
        scheduled[index] = varies
        members = np.flatnonzero(scheduled)
        steps = np.arange(counts.max())
        plan = np.repeat(rates[:, None], len(steps), axis=1)
        plan[members] *= schedule_factor(
            config.base_schedule,
            self.state.iteration[members, None] + steps,
            self.max_iters[members, None],
            warmup,
        )
        return plan

    def _telemetry(self, names: Sequence[str]) -> dict[str, FloatArray]:
        """Return the trainer's telemetry; raise ValueError unless it has `names`."""
        telemetry = self.trainer.telemetry(names)
        for name in names:
            if name not in telemetry:
                raise ValueError(
                    f"{type(self.trainer).__name__}.telemetry must return {name!r}, "
                    f"which info needs: see lr_gym.Trainer.telemetry"
                )
        return telemetry

    def _read_telemetry(self, index: MemberIndex, state: EpisodeState) -> None:
        """Copy the telemetry that the features need into `state`."""
        names = self._telemetry_features
        telemetry = self.trainer.telemetry(names) if names else {}
        for name in names:
            if name not in telemetry:
                raise ValueError(f"feature {name!r} needs telemetry the trainer lacks")
            measured = telemetry[name]
            if not np.isfinite(measured).all():
                measured = np.nan_to_num(measured, nan=mdp.LOSS_BOUND)
            setattr(state, name, measured[index])
