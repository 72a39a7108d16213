"""`MixedTrainer`: members of different shapes, with one trainer per shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.config import TrainingConfig
from lr_gym.data.corpora import load_corpus
from lr_gym.mdp.instances import InstanceFamily
from lr_gym.trainers.base import FloatArray, Trainer, check_chunk
from lr_gym.trainers.population import PopulationTrainer

MAX_IDLE_TRAINERS = 4  # trainers that are kept although no member has their shape


class ShapeGroup(NamedTuple):
    """Members of one shape, and their positions in the caller's sequence of members.

    The positions also index the caller's other sequences: ``seeds[position]``.
    """

    trainer: Trainer
    members: list[int]
    positions: list[int]


class MixedTrainer:
    """A population whose members differ in corpus, model and batch; see `Trainer`.

    Every shape has a trainer of E members. Member e trains as member e of the trainer
    of its shape, so its numbers are those of a population of that shape. The other
    members of that trainer are idle.
    """

    def __init__(
        self,
        shape: TrainingConfig,
        make: Callable[[TrainingConfig], Trainer],
        size: int,
    ) -> None:
        """Start with all members in one shape.

        Args:
            shape: The shape of all members.
            make: Returns a trainer of `size` members; called once per shape in use.
            size: E, at least 1.
        """
        self.size = size
        self._make = make
        self._trainers = {shape: make(shape)}  # least recently chosen first
        self._shapes = [shape] * size
        self._trainer_of = [self._trainers[shape]] * size
        self._all_groups = self._groups(range(size))

    def choose(self, members: Sequence[int], shapes: Sequence[TrainingConfig]) -> None:
        """Give each of `members` its shape; reset them before they train."""
        for shape in dict.fromkeys(shapes):
            trainer = self._trainers.pop(shape, None)
            self._trainers[shape] = self._make(shape) if trainer is None else trainer
        for member, shape in zip(members, shapes, strict=True):
            self._shapes[member] = shape
            self._trainer_of[member] = self._trainers[shape]
        self._all_groups = self._groups(range(self.size))
        used = set(self._shapes)
        idle = [shape for shape in self._trainers if shape not in used]
        for shape in idle[: max(0, len(idle) - MAX_IDLE_TRAINERS)]:
            del self._trainers[shape]

    def shape(self, member: int) -> TrainingConfig:
        """Return the shape of one member."""
        return self._shapes[member]

    # ---------------------------------------------------------------- the protocol

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start fresh runs for `members`, one seed each; see `Trainer.reset`."""
        if len(members) != len(seeds):
            raise ValueError(f"got {len(members)} members but {len(seeds)} seeds")
        for group in self._groups(members):
            group_seeds = [seeds[position] for position in group.positions]
            group.trainer.reset(group.members, group_seeds)

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train each member; see `Trainer.train`.

        Shapes train one after the other. `on_iteration` is called for one shape only:
        that of a member with the most updates.
        """
        counts, _ = check_chunk(iterations, learning_rate, self.size)
        losses = np.full(self.size, np.nan)
        longest = int(counts.argmax())
        for trainer, members, _ in self._all_groups:
            group_counts = np.zeros_like(counts)
            group_counts[members] = counts[members]
            if group_counts.any():
                callback = on_iteration if longest in members else None
                group_losses = trainer.train(group_counts, learning_rate, callback)
                losses[members] = group_losses[members]
        return losses

    def evaluate(self, *, members: Sequence[int] | None = None) -> FloatArray:
        """Return the validation loss; see `Trainer.evaluate`."""
        groups = self._all_groups if members is None else self._groups(members)
        losses = np.empty(self.size if members is None else len(members))
        for group in groups:
            losses[group.positions] = group.trainer.evaluate(members=group.members)
        return losses

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members have diverged, (E,) bool."""
        diverged: NDArray[np.bool_] = np.zeros(self.size, dtype=np.bool_)
        for trainer, members, _ in self._all_groups:
            diverged[members] = trainer.diverged()[members]
        return diverged

    def snapshot(self, members: Sequence[int]) -> dict[str, Any]:
        """Return a copy of the members' states and shapes; see `Trainer.snapshot`."""
        states = [self._trainer_of[member].snapshot([member]) for member in members]
        return {"shapes": [self._shapes[m] for m in members], "states": states}

    def restore(
        self, members: Sequence[int], state: Mapping[str, Any], *, rewind: bool = True
    ) -> None:
        """Put a snapshot back; see `Trainer.restore`.

        Raises:
            ValueError: A member's shape is not the one in the snapshot.
        """
        snapshots = zip(members, state["shapes"], state["states"], strict=True)
        for member, shape, member_state in snapshots:
            if shape != self._shapes[member]:
                raise ValueError(
                    f"member {member} has another shape than the snapshot: "
                    f"{self._shapes[member]}, not {shape}"
                )
            trainer = self._trainer_of[member]
            trainer.restore([member], member_state, rewind=rewind)

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return every member's measurements; see `Trainer.telemetry`."""
        telemetry: dict[str, FloatArray] = {}
        for trainer, members, _ in self._all_groups:
            for name, values in trainer.telemetry(names).items():
                column = telemetry.setdefault(name, np.zeros(self.size))
                column[members] = values[members]
        return telemetry

    def _groups(self, members: Sequence[int]) -> list[ShapeGroup]:
        """Group `members` by shape."""
        groups: dict[int, ShapeGroup] = {}
        for position, member in enumerate(members):
            trainer = self._trainer_of[member]
            group = groups.setdefault(id(trainer), ShapeGroup(trainer, [], []))
            group.members.append(int(member))
            group.positions.append(position)
        return list(groups.values())


def family_population(
    family: InstanceFamily, training: TrainingConfig, size: int
) -> tuple[MixedTrainer, dict[str, float | None]]:
    """Return a population of real runs of `family`, and its corpora's entropy rates.

    Raises:
        ValueError: A width is not a multiple of the head size, or a corpus is unknown
            or damaged.
        FileNotFoundError: A corpus is absent and cannot be downloaded.
    """
    family.training_configs(training)  # raises for a width that is not possible
    corpora = {
        name: load_corpus(name, test_fraction=training.test_fraction)
        for name in family.corpora
    }

    def make(shape: TrainingConfig) -> Trainer:
        return PopulationTrainer(shape, corpora[shape.corpus], size)

    trainer = MixedTrainer(family.instance().training_config(training), make, size)
    return trainer, {name: corpus.entropy_rate for name, corpus in corpora.items()}
