"""Instances of the task: runs sampled from a family, or held out for evaluation.

An agent can train on an `InstanceFamily` to become one controller for unseen runs.
`HELD_OUT` lists runs for evaluation only: nothing may be learned or tuned on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from lr_gym.config import TrainingConfig
from lr_gym.validation import check_integer, check_keys, check_real, field_names

LR_MULTIPLIER_RANGE = (1 / 30, 30.0)  # default of `InstanceFamily.lr_factor`
_COUNTS = ("n_layer", "n_embd", "batch_size", "max_iters")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One run of a family.

    Attributes:
        corpus: A built-in corpus or the path of a text file.
        n_layer: Transformer blocks.
        n_embd: Width. The size of a head is fixed, so the width sets their number.
        batch_size: Sequences per iteration.
        max_iters: Horizon: iterations in the run.
        good_lr: A peak learning rate that is expected to be good for this model.
        lr_factor: Initial learning rate / `good_lr`.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of range.
    """

    corpus: str
    n_layer: int
    n_embd: int
    batch_size: int
    max_iters: int
    good_lr: float
    lr_factor: float

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.corpus, str):
            raise TypeError(f"corpus must be a string, got {self.corpus!r}")
        for name in _COUNTS:
            check_integer(name, getattr(self, name), 1)
        for name in ("good_lr", "lr_factor"):
            check_real(name, getattr(self, name), 0.0, low_open=True)

    @property
    def learning_rate(self) -> float:
        """The initial learning rate."""
        return self.good_lr * self.lr_factor

    def training_config(self, training: TrainingConfig) -> TrainingConfig:
        """Return `training` with this corpus, model and batch size.

        Raises:
            ValueError: The width is not a multiple of the head size in `training`.
        """
        head_size = training.n_embd // training.n_head
        if self.n_embd % head_size:
            raise ValueError(
                f"n_embd must be a multiple of the head size {head_size} "
                f"(n_embd / n_head of the environment), got {self.n_embd}"
            )
        return replace(
            training,
            corpus=self.corpus,
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            n_head=self.n_embd // head_size,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, kw_only=True)
class InstanceFamily:
    """A distribution of instances; each reset of an environment samples one.

    The entries of a tuple are equally likely. The good learning rate is proportional to
    1 / `n_embd`, as for Adam in muP (Yang et al. 2022, arXiv 2203.03466). Each
    combination of corpus, depth, width and batch size needs its own trainer, so keep
    their number small. `max_iters` and `lr_factor` cost nothing.

    Attributes:
        corpora: Corpora.
        n_layer: Depths.
        n_embd: Widths.
        batch_size: Batch sizes.
        max_iters: Horizons.
        lr_factor: Lowest and highest ratio of the initial to the good learning rate;
            log-uniform between them.
        good_lr: The good learning rate at width `good_lr_width`.
        good_lr_width: The width of `good_lr`.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of range, or repeats an entry.
    """

    corpora: tuple[str, ...]
    n_layer: tuple[int, ...]
    n_embd: tuple[int, ...]
    batch_size: tuple[int, ...]
    max_iters: tuple[int, ...]
    lr_factor: tuple[float, float] = LR_MULTIPLIER_RANGE
    good_lr: float
    good_lr_width: int

    def __post_init__(self) -> None:
        """Check every field; lists (from JSON) become tuples."""
        for name in ("corpora", *_COUNTS, "lr_factor"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not value:
                raise TypeError(f"{name} must be a non-empty sequence, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        for name in _COUNTS:
            for number in getattr(self, name):
                check_integer(name, number, 1)
        if not all(isinstance(corpus, str) for corpus in self.corpora):
            raise TypeError(f"corpora must be strings, got {self.corpora!r}")
        for name in ("corpora", *_COUNTS):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} must not repeat, got {getattr(self, name)!r}")
        self._check_rates()

    def _check_rates(self) -> None:
        for factor in self.lr_factor:
            check_real("lr_factor", factor, 0.0, low_open=True)
        if len(self.lr_factor) != 2 or self.lr_factor[0] > self.lr_factor[1]:
            raise ValueError(
                f"lr_factor must be the lowest and the highest, got {self.lr_factor!r}"
            )
        check_real("good_lr", self.good_lr, 0.0, low_open=True)
        check_integer("good_lr_width", self.good_lr_width, 1)

    @classmethod
    def from_config(
        cls, training: TrainingConfig, varied: Mapping[str, Any]
    ) -> InstanceFamily:
        """Return a family in which only the fields in `varied` vary.

        Args:
            training: Provides the single value of every other field. Its learning rate
                is the good one at its width.
            varied: Fields, as from JSON.

        Raises:
            TypeError: A name is not a field, or a value has the wrong type.
            ValueError: A value is out of range.
        """
        if not isinstance(varied, Mapping):
            raise TypeError(
                "family must be a mapping, so that the environment's spec can store "
                "it; pass dataclasses.asdict(family) of an InstanceFamily. Got "
                f"{varied!r}"
            )
        check_keys("family", varied, field_names(cls))
        fields: dict[str, Any] = {name: (getattr(training, name),) for name in _COUNTS}
        fields |= {"corpora": (training.corpus,), "good_lr": training.learning_rate}
        fields |= {"good_lr_width": training.n_embd}
        return cls(**(fields | dict(varied)))

    def instance(self, lr_factor: float = 1.0, **overrides: Any) -> Instance:
        """Return an instance with `overrides`; other fields have their first entry."""
        fields: dict[str, Any] = {"corpus": self.corpora[0], "lr_factor": lr_factor}
        fields |= {name: getattr(self, name)[0] for name in _COUNTS} | overrides
        if "good_lr" not in fields:
            check_integer("n_embd", fields["n_embd"], 1)
            fields["good_lr"] = self.good_lr * self.good_lr_width / fields["n_embd"]
        return Instance(**fields)

    def sample(self, generator: np.random.Generator) -> Instance:
        """Sample an instance."""
        fields: dict[str, Any] = {"corpus": _choice(generator, self.corpora)}
        for name in _COUNTS:
            fields[name] = _choice(generator, getattr(self, name))
        low, high = map(math.log, self.lr_factor)
        return self.instance(math.exp(generator.uniform(low, high)), **fields)

    def with_overrides(self, instance: Instance, overrides: object) -> Instance:
        """Return `instance` with other fields.

        Args:
            instance: The instance to copy.
            overrides: A mapping of fields of `Instance`, or an instance. Without
                ``good_lr``, the good learning rate follows from the width.

        Raises:
            TypeError: `overrides` is not a mapping, a name is not a field, or a value
                has the wrong type.
            ValueError: A value is out of range, or the corpus is not in the family.
        """
        if isinstance(overrides, Instance):
            overrides = asdict(overrides)
        if not isinstance(overrides, Mapping):
            raise TypeError(f"instance must be a mapping of fields, got {overrides!r}")
        check_keys("instance", overrides, field_names(Instance))
        fields = {k: v for k, v in asdict(instance).items() if k != "good_lr"}
        overridden = self.instance(**(fields | dict(overrides)))
        if overridden.corpus not in self.corpora:
            raise ValueError(
                "instance: corpus must be one of the family's, "
                f"{', '.join(self.corpora)}; got {overridden.corpus!r}"
            )
        return overridden

    def training_configs(self, training: TrainingConfig) -> list[TrainingConfig]:
        """Return `Instance.training_config` of every possible instance."""
        return [
            self.instance(
                corpus=corpus, n_layer=n_layer, n_embd=n_embd, batch_size=batch_size
            ).training_config(training)
            for corpus, n_layer, n_embd, batch_size in product(
                self.corpora, self.n_layer, self.n_embd, self.batch_size
            )
        ]

    def learning_rates(self) -> tuple[float, float]:
        """Return the lowest and the highest possible initial learning rate."""
        good_lrs = [self.instance(n_embd=width).good_lr for width in self.n_embd]
        return min(good_lrs) * self.lr_factor[0], max(good_lrs) * self.lr_factor[1]


def _choice(generator: np.random.Generator, values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - of any of the tuples above
    return values[int(generator.integers(len(values)))]


# ---------------------------------------------------------------------------- held out

HELD_OUT_CORPORA = ("shakespeare", "text8", "markov")
HELD_OUT_HORIZONS = (300, 900)
HELD_OUT_LR_FACTORS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
# Depth, width, batch size and good learning rate: `tiny`, and halfway to `mini`.
HELD_OUT_SIZES = ((2, 64, 16, 8e-3), (3, 96, 12, 5e-3))


def _held_out() -> tuple[Instance, ...]:
    """Return every size and horizon at every `lr_factor`.

    The corpora rotate, so that each occurs with every size, horizon and `lr_factor`.
    """
    groups = product(HELD_OUT_SIZES, HELD_OUT_HORIZONS)
    return tuple(
        Instance(
            corpus=HELD_OUT_CORPORA[(group + position) % len(HELD_OUT_CORPORA)],
            n_layer=n_layer,
            n_embd=n_embd,
            batch_size=batch_size,
            max_iters=max_iters,
            good_lr=good_lr,
            lr_factor=lr_factor,
        )
        for group, ((n_layer, n_embd, batch_size, good_lr), max_iters) in enumerate(
            groups
        )
        for position, lr_factor in enumerate(HELD_OUT_LR_FACTORS)
    )


HELD_OUT = _held_out()  # at scale `tiny`; for evaluation only
