"""A user's training loop, with any pilot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.controller.users.pilots import MakePilot, Pilot
from benchmarks.controller.users.tasks import Training, UserTask, trainable


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        loss: Validation loss after the run, inf if it is not finite.
        rates: The first group's learning rate at every update.
    """

    loss: float
    rates: tuple[float, ...]


def run(
    task: UserTask, seed: int, make_pilot: MakePilot, learning_rate: float
) -> Outcome:
    """Train on a task; a training loss that is not finite ends the run."""
    training = task.make(seed)
    pilot = make_pilot(training, learning_rate, task.iterations)
    interval = max(1, task.iterations // task.evaluations)
    rates: list[float] = []
    for iteration in range(task.iterations):
        if pilot.evaluates and iteration % interval == 0:
            pilot.evaluated(training.evaluate())
        pilot.before_update(iteration)
        if not math.isfinite(_update(training, pilot, rates)):
            return Outcome(math.inf, tuple(rates))
    with pilot.evaluating():
        loss = training.evaluate()
    return Outcome(loss if math.isfinite(loss) else math.inf, tuple(rates))


def _update(training: Training, pilot: Pilot, rates: list[float]) -> float:
    """Make one update; append its learning rate; return its training loss."""
    for optimizer in pilot.optimizers:
        optimizer.zero_grad()
    mean_loss = training.loss(training.model, training.draw())
    mean_loss.backward()  # type: ignore[no-untyped-call]
    if training.max_norm is not None:
        nn.utils.clip_grad_norm_(trainable(training.model), training.max_norm)
    loss = float(mean_loss.detach())
    pilot.after_backward(loss)
    rates.append(pilot.rates()[0])
    for optimizer in pilot.optimizers:
        optimizer.step()
    return loss


def one_thread() -> None:
    """Make this process use one thread: the models are small."""
    torch.set_num_threads(1)
