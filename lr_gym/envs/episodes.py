"""Episodes over a trainer: what both faces, single and vector, do at a decision.

Follow `learning_rate` here: action -> the agent's rate -> the base schedule, per
iteration -> the trainer, whose optimizer uses exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym import mdp
from lr_gym.config import TrainingConfig
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.episode_state import EpisodeState, MemberIndex
from lr_gym.mdp.instances import Instance, InstanceFamily
from lr_gym.mdp.rewards import finish_chunk
from lr_gym.schedules import schedule_factor
from lr_gym.trainers.base import FloatArray, Trainer
from lr_gym.trainers.mixed import MixedTrainer
from lr_gym.validation import check_integer, check_keywords, check_real

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
    """E episodes over one population; members start and end on their own."""

    def __init__(
        self,
        trainer: Trainer,
        training: TrainingConfig,
        config: MDPConfig,
        entropy_rate: float | Mapping[str, float | None] | None = None,
        family: InstanceFamily | None = None,
    ) -> None:
        """Join a trainer to a decision process; every episode still has to be reset.

        Args:
            trainer: The population.
            training: Budget, interval, warm-up and initial learning rate.
            config: The decision process.
            entropy_rate: The corpus' known floor of the loss, nats per character; of a
                family, every corpus' by name.
            family: What each reset draws, of a `MixedTrainer`; `None` repeats the run
                that `training` describes.

        Raises:
            TypeError: There is a family, but its members cannot change their shapes.
            ValueError: An initial learning rate is outside [`min_lr`, `max_lr`], or a
                horizon is too short for the decisions.
        """
        self.trainer = trainer
        self.training = training
        self.config = config
        own = mdp.decision_points(config, training.max_iters, training.eval_interval)
        self._own_points = own
        self.decisions = len(own)  # in an episode that does not diverge
        self.family = family
        for length in () if family is None else family.max_iters:
            self._points_of(length)  # one that is too short is refused now
        rates = (training.learning_rate,) if family is None else family.learning_rates()
        for rate in rates:
            self.check_learning_rate(rate)
        self._entropy_rate = entropy_rate
        self._bounds = mdp.observation_bounds(config)
        size = trainer.size
        self.points = np.tile(own, (size, 1))  # (E, decisions)
        self.max_iters = self.points[:, -1].copy()  # (E,)
        self.loss_floor: FloatArray = np.zeros(size)
        self.instances: list[Instance] = []  # each member's, of a family
        if family is None:
            self.loss_floor[:] = self._floor(training.corpus)
        else:
            self.instances = [family.instance()] * size
            self._set_instances(range(size), self.instances)
        self.state = EpisodeState.empty(size)
        self.seeds = np.zeros(size, dtype=np.int64)
        watched = ("grad_norm", "update_size")
        self._watched = [name for name in watched if name in config.features]
        self._before_chunk: dict[int, Mapping[str, Any]] = {}  # only with allow_undo

    def corpus(self, member: int) -> str:
        """Return the name of the corpus that a member trains on."""
        own = self.instances[member] if self.family else self.training
        return own.corpus

    def check_learning_rate(self, value: object) -> None:
        """Raise unless `value` is an initial rate that the agent could reach."""
        low, high = self.config.min_lr, self.config.max_lr
        check_real("learning_rate", value, 0.0, low_open=True)
        if not low <= float(value) <= high:  # type: ignore[arg-type]  # just checked
            raise ValueError(
                f"learning_rate must be in [min_lr, max_lr] = [{low:g}, {high:g}], got "
                f"{value!r}; pass a wider min_lr or max_lr as well"
            )

    def reset(
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
            options: ``seed``, the runs' own, ``learning_rate``, the initial ones, and
                of a family ``instance``, fields that replace those drawn: a value, or
                one per member.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: An option is out of range, or a length does not fit.
        """
        known = ("seed", "learning_rate", *(("instance",) if self.family else ()))
        check_keywords("reset(options=...)", options, known)
        seeds = [int(generator.integers(2**31)) for generator in generators]
        if "seed" in options:
            seeds = _per_member("seed", options["seed"], len(members))
            for seed in seeds:
                check_integer("seed", seed, 0, 2**63 - 1)
        rates: Any = [self.training.learning_rate] * len(members)  # already checked
        instances = None
        if self.family is not None:
            instances = self._sample_instances(
                self.family, generators, options.get("instance")
            )
            rates = [instance.learning_rate for instance in instances]
        if instances is not None or "learning_rate" in options:
            rates = options.get("learning_rate", rates)
            rates = _per_member("learning_rate", rates, len(members))
            for value in rates:
                self.check_learning_rate(value)
        if instances is not None:
            self._set_instances(members, instances)
        self.reset_members(
            members, [int(s) for s in seeds], np.array(rates, dtype=float)
        )

    def reset_members(
        self, members: Sequence[int], seeds: Sequence[int], learning_rates: FloatArray
    ) -> None:
        """Start new episodes of `members`, one seed and initial rate each.

        Of a family each member stays the instance it is.
        """
        rows = list(members)
        self.trainer.reset(rows, seeds)
        loss = self.trainer.evaluate(members=rows)
        state = self.state
        for name in ("decision", "iteration", "grad_norm", "update_size"):
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
            actions: (E,) or (E, `action_size`) valid actions; those of members that
                do not decide are ignored.
            members: Who decides, none of them terminated; `None` is everybody.
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
            self._undo_and_keep(acting, undo)

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
        """Return what Gymnasium calls info: `INFO_KEYS`, each of shape (E,)."""
        return {key: values.copy() for key, values in self._info_arrays().items()}

    def member_info(self, member: int) -> dict[str, Any]:
        """Return one member's, as Python's own numbers."""
        return {key: values.item(member) for key, values in self._info_arrays().items()}

    def _info_arrays(self) -> dict[str, NDArray[Any]]:
        """Return `INFO_KEYS`, each of shape (E,); some are the state's own arrays."""
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

    def _sample_instances(
        self,
        family: InstanceFamily,
        generators: Sequence[np.random.Generator],
        given: object,
    ) -> list[Instance]:
        """Draw an instance from each generator; return them with `given` fields."""
        drawn = [family.sample(generator) for generator in generators]
        if given is None:
            return drawn
        fields = _per_member("instance", given, len(drawn))
        found = [
            family.with_overrides(*pair) for pair in zip(drawn, fields, strict=True)
        ]
        for instance in found:  # before anything of the episodes has changed
            instance.shape(self.training)
            self._points_of(instance.max_iters)
        return found

    def _set_instances(
        self, members: Sequence[int], instances: Sequence[Instance]
    ) -> None:
        """Give `members` the shape, horizon and floor of their instances."""
        if not isinstance(self.trainer, MixedTrainer):
            raise TypeError(f"a family needs a MixedTrainer, got {self.trainer}")
        shapes = [instance.shape(self.training) for instance in instances]
        self.trainer.choose(members, shapes)
        for member, instance in zip(members, instances, strict=True):
            self.instances[member] = instance
            self.points[member] = self._points_of(instance.max_iters)
            self.max_iters[member] = instance.max_iters
            self.loss_floor[member] = self._floor(instance.corpus)

    def _points_of(self, max_iters: int) -> NDArray[np.int64]:
        """Return the decision points of a run of a horizon; it holds the warm-up."""
        if max_iters < self.training.warmup_iters:
            raise ValueError(
                f"max_iters must not be below warmup_iters={self.training.warmup_iters}"
                f", got {max_iters}; pass a smaller warmup_iters as well"
            )
        return mdp.rescale_decision_points(self._own_points, max_iters)

    def _floor(self, corpus: str) -> float:
        """Return what the loss on `corpus` cannot fall below, 0 where not known."""
        if self.config.loss_floor is not None:
            return self.config.loss_floor
        known = self._entropy_rate
        floor = known[corpus] if isinstance(known, Mapping) else known
        return 0.0 if floor is None else floor

    def _undo_and_keep(
        self, members: NDArray[np.int64], undo: NDArray[np.bool_]
    ) -> None:
        """Put back those that undo; then remember `members` for the next undo."""
        for member in members.tolist():
            if undo[member]:
                self.trainer.restore([member], self._before_chunk[member], rewind=False)
            self._before_chunk[member] = self.trainer.snapshot([member])

    def _plan(
        self, index: MemberIndex, state: EpisodeState, counts: NDArray[np.int64]
    ) -> FloatArray:
        """Return the learning rates of the coming chunk, of `counts` updates.

        (E, n), one per update, or (E,) where every member's rate is constant: after
        the warm-up of the ``constant`` schedule, whose factor is then exactly 1.
        """
        config, warmup = self.config, self.training.warmup_iters
        rates = self.state.learning_rate.copy()
        varies = config.base_schedule != "constant" or state.iteration < warmup
        if not np.any(varies):
            return rates
        scheduled = np.zeros(len(counts), dtype=np.bool_)
        scheduled[index] = varies
        chosen = np.flatnonzero(scheduled)
        steps = np.arange(counts.max())
        plan = np.repeat(rates[:, None], len(steps), axis=1)
        plan[chosen] *= schedule_factor(
            config.base_schedule,
            self.state.iteration[chosen, None] + steps,
            self.max_iters[chosen, None],
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
        """Read what the features need beside losses into `state`."""
        telemetry = self.trainer.telemetry(self._watched) if self._watched else {}
        for name in self._watched:
            if name not in telemetry:
                raise ValueError(f"feature {name!r} needs telemetry the trainer lacks")
            measured = telemetry[name]
            if not np.isfinite(measured).all():
                measured = np.nan_to_num(measured, nan=mdp.LOSS_BOUND)
            setattr(state, name, measured[index])


def _per_member(name: str, value: object, count: int) -> list[Any]:
    """Return `value` once per member; a sequence must already be that long."""
    if not isinstance(value, list | tuple | np.ndarray):
        return [value] * count
    values = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must have {count} entries, got {len(values)}")
    return values
