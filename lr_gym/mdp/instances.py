"""Instances of the task: which run it is, drawn from a family or frozen for judging.

One controller for runs it has never seen is the question; an `InstanceFamily` says what
runs there are, `HELD_OUT` those that nothing may be chosen or learned on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from lr_gym.config import TrainingConfig
from lr_gym.validation import check_integer, check_keywords, check_real, field_names

LR_MULTIPLIER_RANGE = (
    1 / 30,
    30.0,
)  # the widest mistake in an initial rate that a family makes
_COUNTS = ("n_layer", "n_embd", "batch_size", "max_iters")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One run of a family.

    Attributes:
        corpus: As of `TrainingConfig`, like the next four.
        n_layer: Transformer blocks.
        n_embd: Width; heads keep their size, so that it sets their number.
        batch_size: Sequences per iteration.
        max_iters: The horizon: updates in the run.
        good_lr: A good peak rate for runs of this size, as far as is known beforehand.
        lr_factor: How wrong the run's initial rate is: its ratio to `good_lr`.

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
        """The initial rate."""
        return self.good_lr * self.lr_factor

    def shape(self, training: TrainingConfig) -> TrainingConfig:
        """Return `training` with this corpus, model and batch.

        Raises:
            ValueError: The width does not hold whole heads of the size in `training`.
        """
        head = training.n_embd // training.n_head
        if self.n_embd % head:
            raise ValueError(
                f"n_embd must be a multiple of the head size {head} (n_embd / n_head "
                f"of the environment), got {self.n_embd}"
            )
        return replace(
            training,
            corpus=self.corpus,
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            n_head=self.n_embd // head,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, kw_only=True)
class InstanceFamily:
    """What each reset draws: every entry of a tuple is as likely as the next.

    The good rate of a width follows Adam's in muP (Yang et al. 2022, arXiv 2203.03466):
    it falls as 1 / `n_embd`. Every corpus, depth, width and batch size that occurs
    together needs a trainer of its own: keep the numbers of choices small. `max_iters`
    and `lr_factor` may vary as they like.

    Attributes:
        corpora: Corpora to draw from.
        n_layer: Depths.
        n_embd: Widths.
        batch_size: Batch sizes.
        max_iters: Horizons.
        lr_factor: Lowest and highest ratio of the initial to the good rate, drawn
            log-uniformly between them.
        good_lr: The good rate at width `good_lr_width`.
        good_lr_width: Of `good_lr`.

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
        cls, training: TrainingConfig, given: Mapping[str, Any]
    ) -> InstanceFamily:
        """Return the family of `given` fields; the others do not vary.

        Args:
            training: Holds what is not given: its learning rate is the good one of its
                width, and its corpus, depth, width, batch and horizon the only ones.
            given: Fields, as from JSON.

        Raises:
            TypeError: A name is no field, or a value has the wrong type.
            ValueError: A value is out of range.
        """
        if not isinstance(given, Mapping):
            raise TypeError(
                "family must be a mapping, which the environment's spec can hold (of "
                f"an InstanceFamily: dataclasses.asdict(family)), got {given!r}"
            )
        check_keywords("family", given, field_names(cls))
        own: dict[str, Any] = {name: (getattr(training, name),) for name in _COUNTS}
        own |= {"corpora": (training.corpus,), "good_lr": training.learning_rate}
        own |= {"good_lr_width": training.n_embd}
        return cls(**(own | dict(given)))

    def instance(self, lr_factor: float = 1.0, **chosen: Any) -> Instance:
        """Return the instance of `chosen` fields; of others the first choice."""
        fields: dict[str, Any] = {"corpus": self.corpora[0], "lr_factor": lr_factor}
        fields |= {name: getattr(self, name)[0] for name in _COUNTS} | chosen
        if "good_lr" not in fields:
            check_integer("n_embd", fields["n_embd"], 1)
            fields["good_lr"] = self.good_lr * self.good_lr_width / fields["n_embd"]
        return Instance(**fields)

    def sample(self, generator: np.random.Generator) -> Instance:
        """Draw an instance."""
        chosen: dict[str, Any] = {"corpus": _choice(generator, self.corpora)}
        for name in _COUNTS:
            chosen[name] = _choice(generator, getattr(self, name))
        low, high = map(math.log, self.lr_factor)
        return self.instance(math.exp(generator.uniform(low, high)), **chosen)

    def with_overrides(self, drawn: Instance, given: object) -> Instance:
        """Return `drawn` with `given` fields; another width has its own good rate.

        Raises:
            TypeError: `given` is no mapping, a name no field, or a type is wrong.
            ValueError: A value is out of range, or no corpus of the family.
        """
        if isinstance(given, Instance):
            given = asdict(given)
        if not isinstance(given, Mapping):
            raise TypeError(f"instance must be a mapping of fields, got {given!r}")
        check_keywords("instance", given, field_names(Instance))
        kept = {k: v for k, v in asdict(drawn).items() if k != "good_lr"}
        found = self.instance(**(kept | dict(given)))
        if found.corpus not in self.corpora:
            raise ValueError(
                "instance: corpus must be one of the family's, "
                f"{', '.join(self.corpora)}; got {found.corpus!r}"
            )
        return found

    def shapes(self, training: TrainingConfig) -> list[TrainingConfig]:
        """Return what `Instance.shape` of every possible instance is."""
        return [
            self.instance(
                corpus=corpus, n_layer=n_layer, n_embd=n_embd, batch_size=batch_size
            ).shape(training)
            for corpus, n_layer, n_embd, batch_size in product(
                self.corpora, self.n_layer, self.n_embd, self.batch_size
            )
        ]

    def learning_rates(self) -> tuple[float, float]:
        """Return the lowest and the highest initial rate that can be drawn."""
        good = [self.instance(n_embd=width).good_lr for width in self.n_embd]
        return min(good) * self.lr_factor[0], max(good) * self.lr_factor[1]


def _choice(generator: np.random.Generator, values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - of any of the tuples above
    return values[int(generator.integers(len(values)))]


# ---------------------------------------------------------------------------- held out

HELD_OUT_CORPORA = ("shakespeare", "text8", "markov")
HELD_OUT_HORIZONS = (300, 900)
HELD_OUT_LR_FACTORS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
# Depth, width, batch size: that of `tiny`, and one halfway to `mini`; with a good rate.
HELD_OUT_SIZES = ((2, 64, 16, 8e-3), (3, 96, 12, 5e-3))


def _held_out() -> tuple[Instance, ...]:
    """Return the design: every size and horizon at every wrong rate.

    Corpora take turns, such that each meets every size, horizon and wrong rate.
    """
    groups = product(HELD_OUT_SIZES, HELD_OUT_HORIZONS)
    return tuple(
        Instance(
            corpus=HELD_OUT_CORPORA[(group + place) % len(HELD_OUT_CORPORA)],
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
        for place, lr_factor in enumerate(HELD_OUT_LR_FACTORS)
    )


HELD_OUT = _held_out()  # of `tiny`; nothing is chosen, tuned or learned on these
