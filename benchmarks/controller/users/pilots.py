"""What sets the learning rates of a user's run: nothing, schedules and rivals.

Each rival has the settings that its authors advise. AdaLRS has no released code: it is
a short version by its paper's equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmarks.controller.users.tasks import Training, trainable

WARMUP = 0.05  # of the run, for schedules and schedule-free
COOLDOWN = 0.3  # of the run, for WSD
Shape = Callable[[float], float]  # progress, from 0 to 1, to a factor
SavedState = tuple[dict[str, Tensor], list[dict[str, Any]]]


class Pilot:
    """Leaves the user's learning rates alone; rivals override its methods."""

    evaluates = False  # whether it asks for validation losses during the run

    def __init__(self, training: Training, lr: float, iterations: int) -> None:
        """Make the optimizers of a run at the user's learning rate."""
        self.training = training
        self.iterations = iterations
        self.optimizers = self.make_optimizers(lr)
        self._first_rates = self.rates()

    def make_optimizers(self, lr: float) -> list[Optimizer]:
        """Return the user's optimizers."""
        return self.training.make_optimizers(self.training.model, lr)

    def rates(self) -> list[float]:
        """Return the learning rates of all parameter groups."""
        return [group["lr"] for group in self._groups()]

    def scale(self, factor: float) -> None:
        """Set all learning rates to `factor` times the user's."""
        for group, rate in zip(self._groups(), self._first_rates, strict=True):
            group["lr"] = factor * rate

    def before_update(self, iteration: int) -> None:
        """Do what precedes update number `iteration`, from 0."""

    def after_backward(self, loss: float) -> None:
        """Do what follows a backward pass: gradients are there."""

    def evaluated(self, loss: float) -> None:
        """Take a validation loss; asked for if `evaluates`."""

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have the weights that are to be evaluated, for a while."""
        yield

    def _groups(self) -> list[dict[str, float]]:
        return [group for o in self.optimizers for group in o.param_groups]


class MakePilot(Protocol):
    """Makes the pilot of a run."""

    def __call__(self, training: Training, lr: float, iterations: int) -> Pilot:
        """Return a new pilot; see `Pilot`."""


class Scheduled(Pilot):
    """A schedule from the user's learning rate as its peak."""

    def __init__(
        self, training: Training, lr: float, iterations: int, *, shape: Shape
    ) -> None:
        """See `Pilot`; `shape` is the schedule."""
        super().__init__(training, lr, iterations)
        self._shape = shape

    def before_update(self, iteration: int) -> None:
        """Set the learning rates."""
        self.scale(self._shape((iteration + 1) / self.iterations))


def constant(progress: float) -> float:
    """Return 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Return a linear warm-up, then half a cosine to zero."""
    after = max(0.0, progress - WARMUP) / (1.0 - WARMUP)
    return min(1.0, progress / WARMUP) * (1.0 + math.cos(math.pi * after)) / 2.0


def wsd(progress: float) -> float:
    """Return a linear warm-up, a plateau, and a linear decay to zero."""
    return max(0.0, min(1.0, progress / WARMUP, (1.0 - progress) / COOLDOWN))


class Plateau(Pilot):
    """torch's ReduceLROnPlateau with its defaults."""

    evaluates = True

    def __init__(self, training: Training, lr: float, iterations: int) -> None:
        """See `Pilot`."""
        super().__init__(training, lr, iterations)
        make = torch.optim.lr_scheduler.ReduceLROnPlateau
        self._schedulers = [make(optimizer) for optimizer in self.optimizers]

    def evaluated(self, loss: float) -> None:
        """Reduce the learning rates if the loss stalls."""
        for scheduler in self._schedulers:
            scheduler.step(loss)


class Greedy(Pilot):
    """Hugging Face's GreedyLR with its defaults, but for its absolute bounds.

    They are 1e-3 and 1; here they are a thousandth and a hundred times the user's rate.
    """

    evaluates = True

    def __init__(self, training: Training, lr: float, iterations: int) -> None:
        """See `Pilot`."""
        from transformers.optimization import GreedyLR

        super().__init__(training, lr, iterations)
        self._schedulers = [
            GreedyLR(
                optimizer,
                min_lr=optimizer.param_groups[0]["lr"] / 1e3,
                max_lr=optimizer.param_groups[0]["lr"] * 1e2,
            )
            for optimizer in self.optimizers
        ]

    def evaluated(self, loss: float) -> None:
        """Raise or lower the learning rates."""
        for scheduler in self._schedulers:
            scheduler.step(loss)


class ScheduleFree(Pilot):
    """AdamW or SGD of schedule-free, with a warm-up of 5 %."""

    def make_optimizers(self, lr: float) -> list[Optimizer]:
        """Return one optimizer for all parameters.

        Raises:
            NotImplementedError: The user's optimizer has no schedule-free form.
        """
        import schedulefree  # type: ignore[import-untyped]

        theirs = super().make_optimizers(lr)
        kinds: dict[type[Optimizer], type[Optimizer]] = {
            torch.optim.AdamW: schedulefree.AdamWScheduleFree,
            torch.optim.SGD: schedulefree.SGDScheduleFree,
        }
        if len(theirs) != 1 or type(theirs[0]) not in kinds:
            raise NotImplementedError("schedule-free has AdamW and SGD only")
        make = kinds[type(theirs[0])]
        warmup = round(WARMUP * self.iterations)
        optimizer: Optimizer = make(
            trainable(self.training.model),
            lr=lr,
            warmup_steps=warmup,  # type: ignore[call-arg]
        )
        optimizer.train()  # type: ignore[attr-defined]
        return [optimizer]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have the averaged weights; batch norm sees them in some batches first."""
        (optimizer,) = self.optimizers
        optimizer.eval()  # type: ignore[attr-defined]
        with torch.no_grad():
            for _ in range(50):
                self.training.loss(self.training.model, self.training.draw())
        yield
        optimizer.train()  # type: ignore[attr-defined]


class Prodigy(Scheduled):
    """Prodigy at its own learning rate of 1, with a cosine to zero."""

    def __init__(self, training: Training, lr: float, iterations: int) -> None:
        """See `Pilot`."""
        super().__init__(training, lr, iterations, shape=cosine)

    def make_optimizers(self, lr: float) -> list[Optimizer]:
        """Return one optimizer for all parameters."""
        import prodigyopt  # type: ignore[import-untyped]

        weights = trainable(self.training.model)
        return [prodigyopt.Prodigy(weights, lr=1.0, safeguard_warmup=True)]


class AdaLRS(Pilot):
    """Searches by the speed at which the training loss falls (arXiv 2506.13274).

    A window's speed is minus the slope of a line through its losses. If a window falls
    more slowly than the last one, the rates rise. If the next window falls no faster,
    they fall, and weights and optimizer return to what they were. The search ends
    after a third of the run; the user's schedule follows, here WSD's.
    """

    UP, DOWN, SHRINK = 3.0, 2.0, 0.99
    WINDOWS = 40

    def __init__(self, training: Training, lr: float, iterations: int) -> None:
        """See `Pilot`."""
        super().__init__(training, lr, iterations)
        self._length = max(4, iterations // self.WINDOWS)
        self._factor, self._tries = 1.0, 0
        self._losses: list[float] = []
        self._speed: float | None = None
        self._before: tuple[float, float, SavedState] | None = None

    def before_update(self, iteration: int) -> None:
        """Set the learning rates."""
        done = (iteration + 1) / self.iterations
        if len(self._losses) == self._length and done < 1.0 / 3.0:
            self._decide()
        self.scale(self._factor * wsd(done))

    def after_backward(self, loss: float) -> None:
        """Collect the training loss."""
        self._losses = [*self._losses[-self._length + 1 :], loss]

    def _decide(self) -> None:
        slope = np.polyfit(np.arange(len(self._losses)), self._losses, 1)[0]
        speed, self._losses = -float(slope), []
        step = self.SHRINK**self._tries
        if self._before is not None:  # a rise is on trial
            factor, old_speed, state = self._before
            self._before = None
            if not speed > old_speed:
                self._restore(state)
                self._factor = factor / max(1.0, self.DOWN * step)
        elif self._speed is not None and speed < self._speed:
            self._before = self._factor, speed, self._state()
            self._factor *= max(1.0, self.UP * step)
            self._tries += 1
        self._speed = speed

    def _state(self) -> SavedState:
        model = {k: v.clone() for k, v in self.training.model.state_dict().items()}
        return model, [deepcopy(o.state_dict()) for o in self.optimizers]

    def _restore(self, state: SavedState) -> None:
        model, optimizers = state
        self.training.model.load_state_dict(model)
        for optimizer, saved in zip(self.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(saved)


def _scheduled(shape: Shape) -> MakePilot:
    return partial(Scheduled, shape=shape)


TUNED: dict[str, MakePilot] = {  # with the best of several peaks
    "constant": _scheduled(constant),
    "cosine": _scheduled(cosine),
    "wsd": _scheduled(wsd),
}
RIVALS: dict[str, MakePilot] = {  # from the user's learning rate
    "left alone": Pilot,
    "plateau": Plateau,
    "greedy": Greedy,
    "schedule-free": ScheduleFree,
    "prodigy": Prodigy,
    "adalrs": AdaLRS,
}
