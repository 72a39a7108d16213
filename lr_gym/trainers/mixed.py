"""`MixedTrainer`: members of different shapes, each shape a trainer of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.config import TrainingConfig
from lr_gym.data.corpora import load_corpus
from lr_gym.mdp.instances import InstanceFamily
from lr_gym.trainers.base import FloatArray, Trainer, check_chunk, mask_of
from lr_gym.trainers.population import PopulationTrainer

MAX_IDLE_TRAINERS = 4  # trainers kept although no member is of their shape now

Part = tuple[Trainer, list[int], list[int]]  # of one shape; members; their places


class MixedTrainer:
    """A population whose members differ in corpus, model and batch; see `Trainer`.

    Member e of the population is member e of the trainer of its shape, whose other
    members wait. A member's numbers are those of a population of its shape.
    """

    def __init__(
        self,
        shape: TrainingConfig,
        make: Callable[[TrainingConfig], Trainer],
        size: int,
    ) -> None:
        """Start with every member of one shape.

        Args:
            shape: That shape.
            make: Returns a trainer of `size` members, called once per shape in use.
            size: E, at least 1.
        """
        self.size = size
        self._make = make
        self._trainers = {shape: make(shape)}  # the least recently chosen first
        self._shapes = [shape] * size
        self._owners = [self._trainers[shape]] * size
        self._everybody = self._parts(range(size))

    def choose(self, members: Sequence[int], shapes: Sequence[TrainingConfig]) -> None:
        """Give each of `members` its shape; it has to be reset next."""
        for shape in dict.fromkeys(shapes):
            known = self._trainers.pop(shape, None)
            self._trainers[shape] = self._make(shape) if known is None else known
        for member, shape in zip(members, shapes, strict=True):
            self._shapes[member] = shape
            self._owners[member] = self._trainers[shape]
        self._everybody = self._parts(range(self.size))
        used = set(self._shapes)
        unused = [shape for shape in self._trainers if shape not in used]
        for shape in unused[: max(0, len(unused) - MAX_IDLE_TRAINERS)]:
            del self._trainers[shape]

    def shape(self, member: int) -> TrainingConfig:
        """Return the shape of one member."""
        return self._shapes[member]

    # ---------------------------------------------------------------- the protocol

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start fresh runs for `members`, one seed each; see `Trainer.reset`."""
        if len(members) != len(seeds):
            raise ValueError(f"got {len(members)} members but {len(seeds)} seeds")
        for trainer, own, places in self._parts(members):
            trainer.reset(own, [seeds[place] for place in places])

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train each member; see `Trainer.train`.

        One shape after the other; updates are reported of one that makes the most.
        """
        counts, _ = check_chunk(iterations, learning_rate, self.size)
        losses = np.full(self.size, np.nan)
        longest = int(counts.argmax())
        for trainer, own, _ in self._everybody:
            there = mask_of(own, self.size)
            if counts[there].any():
                told = on_iteration if longest in own else None
                found = trainer.train(np.where(there, counts, 0), learning_rate, told)
                losses[own] = found[own]
        return losses

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss; see `Trainer.evaluate`."""
        parts = self._everybody if members is None else self._parts(members)
        losses = np.empty(self.size if members is None else len(members))
        for trainer, own, places in parts:
            losses[places] = trainer.evaluate(members=own)
        return losses

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members are frozen, (E,) bool."""
        frozen: NDArray[np.bool_] = np.zeros(self.size, dtype=np.bool_)
        for trainer, own, _ in self._everybody:
            frozen[own] = trainer.diverged()[own]
        return frozen

    def snapshot(self, members: Sequence[int]) -> dict[str, Any]:
        """Copy what training of `members` depends on, each with its shape."""
        states = [self._owners[member].snapshot([member]) for member in members]
        return {"shapes": [self._shapes[m] for m in members], "states": states}

    def restore(
        self, members: Sequence[int], state: Mapping[str, Any], *, rewind: bool = True
    ) -> None:
        """Put a snapshot back; see `Trainer.restore`.

        Raises:
            ValueError: A member is of another shape now than in the snapshot.
        """
        copies = zip(members, state["shapes"], state["states"], strict=True)
        for member, shape, copy in copies:
            if shape != self._shapes[member]:
                raise ValueError(
                    f"member {member} is of another shape than the snapshot's: "
                    f"{self._shapes[member]}, not {shape}"
                )
            self._owners[member].restore([member], copy, rewind=rewind)

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return every member's, from the trainer of its shape."""
        found: dict[str, FloatArray] = {}
        for trainer, own, _ in self._everybody:
            for name, values in trainer.telemetry(names).items():
                found.setdefault(name, np.zeros(self.size))[own] = values[own]
        return found

    def _parts(self, members: Sequence[int]) -> list[Part]:
        """Return `members` by shape, and their places in the order given."""
        parts: dict[int, Part] = {}
        for place, member in enumerate(members):
            trainer = self._owners[member]
            _, own, places = parts.setdefault(id(trainer), (trainer, [], []))
            own.append(int(member))
            places.append(place)
        return list(parts.values())


def family_population(
    family: InstanceFamily, training: TrainingConfig, size: int
) -> tuple[MixedTrainer, dict[str, float | None]]:
    """Return a population of real runs of `family`, and its corpora's entropy rates.

    Raises:
        ValueError: A width holds no whole heads, or a corpus is unknown or damaged.
        FileNotFoundError: A corpus is absent and cannot be downloaded.
    """
    family.shapes(training)  # a width that cannot be is refused now
    texts = {
        name: load_corpus(name, test_fraction=training.test_fraction)
        for name in family.corpora
    }

    def make(shape: TrainingConfig) -> Trainer:
        return PopulationTrainer(shape, texts[shape.corpus], size)

    trainer = MixedTrainer(family.instance().shape(training), make, size)
    return trainer, {name: text.entropy_rate for name, text in texts.items()}
