"""How episodes start: the options of `reset`, checked, and samples of a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lr_gym import mdp
from lr_gym.config import TrainingConfig
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.instances import Instance, InstanceFamily
from lr_gym.trainers.base import FloatArray
from lr_gym.validation import check_integer, check_keys, check_real


class Starts(NamedTuple):
    """What new episodes start from, one entry per member that is reset.

    `instances` is empty without a family.
    """

    seeds: list[int]
    learning_rates: FloatArray
    instances: list[Instance]


class StartSampler:
    """Samples how episodes start, and checks it before any episode changes."""

    def __init__(
        self,
        training: TrainingConfig,
        config: MDPConfig,
        family: InstanceFamily | None,
    ) -> None:
        """Check the settings that every reset uses.

        Args:
            training: Budget, interval, warm-up and initial learning rate.
            config: The decision process.
            family: Each reset samples an instance from it; `None` repeats the run that
                `training` describes.

        Raises:
            ValueError: An initial learning rate is outside [`min_lr`, `max_lr`], or a
                horizon is too short for the decisions.
        """
        self._training = training
        self._config = config
        self._family = family
        # Decision points of a run of `training.max_iters`, (decisions,).
        self.points = mdp.decision_points(
            config, training.max_iters, training.eval_interval
        )
        for length in () if family is None else family.max_iters:
            self.decision_points(length)  # raises now if it is too short
        rates = (training.learning_rate,) if family is None else family.learning_rates()
        for rate in rates:
            self._check_learning_rate(rate)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options of `reset`."""
        return ("seed", "learning_rate", *(("instance",) if self._family else ()))

    def sample(
        self, generators: Sequence[np.random.Generator], options: Mapping[str, Any]
    ) -> Starts:
        """Sample the starts of new episodes, then apply the options of `reset`.

        Args:
            generators: One per member; draws the run's seed. It draws even if an option
                gives the seed, so that later runs do not depend on the option.
            options: The options of `EpisodeBatch.reset`.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: An option is out of range, or a length does not fit.
        """
        check_keys("reset(options=...)", options, self.options)
        count = len(generators)
        seeds = [int(generator.integers(2**31)) for generator in generators]
        if "seed" in options:
            seeds = _per_member("seed", options["seed"], count)
            for seed in seeds:
                check_integer("seed", seed, 0, 2**63 - 1)
        rates: Any = [self._training.learning_rate] * count  # already checked
        instances: list[Instance] = []
        if self._family is not None:
            instances = self._sample_instances(
                self._family, generators, options.get("instance")
            )
            rates = [instance.learning_rate for instance in instances]
        if instances or "learning_rate" in options:
            rates = options.get("learning_rate", rates)
            rates = _per_member("learning_rate", rates, count)
            for rate in rates:
                self._check_learning_rate(rate)
        return Starts([int(s) for s in seeds], np.array(rates, dtype=float), instances)

    def decision_points(self, max_iters: int) -> NDArray[np.int64]:
        """Return the decision points of a run of `max_iters` iterations.

        Raises:
            ValueError: The run is too short for the warm-up or the decisions.
        """
        if max_iters < self._training.warmup_iters:
            raise ValueError(
                "max_iters must not be below warmup_iters="
                f"{self._training.warmup_iters}, got {max_iters}; pass a smaller "
                "warmup_iters as well"
            )
        return mdp.rescale_decision_points(self.points, max_iters)

    def _check_learning_rate(self, value: object) -> None:
        """Raise unless `value` is a real number in [`min_lr`, `max_lr`]."""
        low, high = self._config.min_lr, self._config.max_lr
        check_real("learning_rate", value, 0.0, low_open=True)
        if not low <= float(value) <= high:  # type: ignore[arg-type]  # just checked
            raise ValueError(
                f"learning_rate must be in [min_lr, max_lr] = [{low:g}, {high:g}], got "
                f"{value!r}; pass a wider min_lr or max_lr as well"
            )

    def _sample_instances(
        self,
        family: InstanceFamily,
        generators: Sequence[np.random.Generator],
        overrides: object,
    ) -> list[Instance]:
        """Sample an instance with each generator, then apply `overrides`."""
        instances = [family.sample(generator) for generator in generators]
        if overrides is None:
            return instances
        fields = _per_member("instance", overrides, len(instances))
        instances = [
            family.with_overrides(*pair) for pair in zip(instances, fields, strict=True)
        ]
        for instance in instances:  # raise before the episodes change
            instance.training_config(self._training)
            self.decision_points(instance.max_iters)
        return instances


def _per_member(name: str, value: object, count: int) -> list[Any]:
    """Return `value` once per member; a sequence must already be that long."""
    if not isinstance(value, list | tuple | np.ndarray):
        return [value] * count
    values = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must have {count} entries, got {len(values)}")
    return values
