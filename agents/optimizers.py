"""Optimizers that need no tuned schedule, as their authors claim, on our training runs.

A run differs from the environment's only in its optimizer: model, initial weights,
batches, clipping and evaluation are the same. The environment still sets the
optimizer's `lr`, so that it can follow the base schedule its authors recommend.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from lr_gym.config import TrainingConfig
from lr_gym.controllers import ControllerLR
from lr_gym.data.corpora import Corpus
from lr_gym.trainers.adamw import AdamW
from lr_gym.trainers.base import FloatArray
from lr_gym.trainers.population import PopulationTrainer

HYPER_STEP = 0.02  # of the hypergradient; chosen here: 50 agreeing updates make it e


class Stepper(Protocol):
    """Replaces `lr_gym.trainers.adamw.AdamW`, for one run."""

    def start(
        self, parameters: Tensor, shapes: Sequence[torch.Size], total_steps: int
    ) -> None:
        """Begin a run.

        Args:
            parameters: The weights, (1, P), which are changed in place.
            shapes: Of the tensors that the weights hold, in order, matrices first.
            total_steps: Updates of the whole run.
        """

    def step(
        self,
        state: dict[str, Tensor],
        gradients: Tensor,
        lr: Tensor,
        diverged: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Update, and record the learning rate used; see `AdamW.step`."""

    def evaluating(self, now: bool) -> None:
        """Prepare the weights for evaluation, or for training again."""


class OptimizerTrainer(PopulationTrainer):
    """One run with another optimizer. It cannot be put back to a snapshot."""

    def __init__(
        self, config: TrainingConfig, corpus: Corpus, make: Callable[[AdamW], Stepper]
    ) -> None:
        """Build the run; `make` gets the environment's AdamW."""
        super().__init__(config, corpus, 1)
        self.stepper = make(self.optimizer)
        self.optimizer = self.stepper  # type: ignore[assignment]  # the same `step`
        self._step = replace(self._step, optimizer=self.optimizer)
        self._compiled_step = None  # other libraries' code is not compiled
        self._start()

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start a fresh run, of weights and optimizer."""
        super().reset(members, seeds)
        self._start()

    def _start(self) -> None:
        shapes = tuple(self.population_loss.shapes.values())
        self.stepper.start(self._state["parameters"], shapes, self.config.max_iters)

    def evaluate(
        self,
        split: str = "val",
        *,
        exact: bool = False,
        members: Sequence[int] | None = None,
    ) -> FloatArray:
        """Return the loss at the weights that the optimizer evaluates at."""
        self.stepper.evaluating(True)
        loss = super().evaluate(split, exact=exact, members=members)
        self.stepper.evaluating(False)
        return loss

    def restore(
        self,
        members: Sequence[int],
        state: Mapping[str, Tensor],
        *,
        rewind: bool = True,
    ) -> None:
        """Raise: the optimizer's own state is not in a snapshot."""
        raise NotImplementedError("an OptimizerTrainer cannot be restored")


class TorchOptimizer:
    """A `torch.optim.Optimizer` over a member's flat weights, decayed part first."""

    def __init__(
        self,
        reference: AdamW,
        build: Callable[..., torch.optim.Optimizer],
    ) -> None:
        """Use `build`'s optimizer with `reference`'s betas, decay and clipping."""
        self._reference = reference
        self._build = build

    def start(
        self, parameters: Tensor, shapes: Sequence[torch.Size], total_steps: int
    ) -> None:
        """Build a fresh optimizer over views of `parameters`."""
        self._shapes = self._parts_of(parameters, shapes)
        parts = self._split(parameters[0].detach())
        self._parts = [nn.Parameter(part) for part in parts]
        sizes = [part.numel() for part in parts]
        cut, ends = self._reference.n_decayed, itertools.accumulate(sizes)
        decayed = [end <= cut for end in ends]
        groups = [
            {
                "params": [
                    part
                    for part, has_decay in zip(self._parts, decayed, strict=True)
                    if has_decay == wanted
                ],
                "weight_decay": self._reference.weight_decay if wanted else 0.0,
            }
            for wanted in (True, False)
        ]
        betas = (self._reference.beta1, self._reference.beta2)
        self._optimizer = self._build(groups, betas=betas)
        self.evaluating(False)

    def step(
        self,
        state: dict[str, Tensor],
        gradients: Tensor,
        lr: Tensor,
        diverged: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Clip and update."""
        norms = gradients.norm(dim=1)
        diverged = diverged | ~norms.isfinite()
        if bool(diverged[0]):
            return norms, diverged
        clip = self._reference.grad_clip
        gradient = gradients[0]
        if clip > 0:
            gradient = gradient * (clip / (norms[0] + 1e-6)).clamp(max=1.0)
        for part, of_part in zip(self._parts, self._split(gradient), strict=True):
            part.grad = of_part
        self._set_rate(float(lr[0]))
        used = self._optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        state["updates"].add_(1)
        state["learning_rate"].fill_(used)
        return norms, diverged

    def evaluating(self, now: bool) -> None:
        """Switch averaging optimizers (schedule-free) to the weights to use."""
        switch = getattr(self._optimizer, "eval" if now else "train", None)
        if switch is not None:
            switch()

    def _parts_of(
        self, parameters: Tensor, shapes: Sequence[torch.Size]
    ) -> Sequence[torch.Size]:
        """Return the shapes of the optimizer's parts: all matrices, all vectors."""
        cut = self._reference.n_decayed
        return torch.Size([cut]), torch.Size([parameters.shape[1] - cut])

    def _split(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of flat weights or gradients (P,), as views."""
        sizes = [math.prod(shape) for shape in self._shapes]
        parts = torch.split(flat, sizes)
        return [part.view(s) for part, s in zip(parts, self._shapes, strict=True)]

    def _set_rate(self, rate: float) -> None:
        """Set the rate of the next update."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate


class ControlledAdamW(TorchOptimizer):
    """torch's AdamW under `ControllerLR`, without evaluations.

    The environment's first rate is the controller's guess; its later ones, which a
    constant schedule repeats, have no effect.
    """

    def __init__(self, reference: AdamW) -> None:
        """Use `reference`'s betas, decay and clipping."""
        # The kernel that the environment's own AdamW uses.
        super().__init__(reference, partial(torch.optim.AdamW, fused=True))

    def start(
        self, parameters: Tensor, shapes: Sequence[torch.Size], total_steps: int
    ) -> None:
        """Build a fresh optimizer; its controller follows at the first rate."""
        super().start(parameters, shapes, total_steps)
        self._total_steps = total_steps
        self._controller: ControllerLR | None = None

    def _parts_of(
        self, parameters: Tensor, shapes: Sequence[torch.Size]
    ) -> Sequence[torch.Size]:
        """Return the shape of every weight: the controller measures matrices."""
        return shapes

    def _set_rate(self, rate: float) -> None:
        """Start the controller from the first rate."""
        if self._controller is None:
            super()._set_rate(rate)
            self._controller = ControllerLR(self._optimizer, self._total_steps)


class HypergradientAdamW:
    """AdamW with a rate that follows the gradient of the loss in that rate.

    Baydin et al. 2018 (arXiv 1703.04782), the multiplicative form: the rate grows by
    `HYPER_STEP` times the cosine between the descent direction and the last update.
    """

    def __init__(self, reference: AdamW) -> None:
        """Use `reference` for the updates."""
        self._reference = reference

    def start(
        self, parameters: Tensor, shapes: Sequence[torch.Size], total_steps: int
    ) -> None:
        """Reset the factor on the rate."""
        self._factor = 1.0
        self._last: Tensor | None = None

    def step(
        self,
        state: dict[str, Tensor],
        gradients: Tensor,
        lr: Tensor,
        diverged: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Adapt the factor on the environment's rate, then update."""
        if self._last is not None and bool(gradients.isfinite().all()):
            cosine = torch.cosine_similarity(gradients, self._last, dim=1)
            self._factor *= 1.0 - HYPER_STEP * float(cosine[0])
        before = state["parameters"].clone()
        outcome = self._reference.step(state, gradients, lr * self._factor, diverged)
        self._last = state["parameters"] - before
        return outcome

    def evaluating(self, now: bool) -> None:
        """Nothing to prepare."""


@dataclass(frozen=True)
class OptimizerMethod:
    """One such optimizer and the settings that its authors recommend."""

    make: Callable[[AdamW], Stepper]
    base_schedule: str
    learning_rate: float | None = None  # middle of its grid; `None` is the task's
    warmup: bool = True  # whether its rate has the task's warm-up


def _library(module: str, name: str) -> Callable[..., torch.optim.Optimizer]:
    try:
        found: Callable[..., torch.optim.Optimizer] = getattr(
            importlib.import_module(module), name
        )
    except ImportError as error:
        raise ImportError(
            f"{name} needs the package {module}: pip install 'lr-gym[benchmarks]'"
        ) from error
    return found


def _schedule_free(reference: AdamW) -> Stepper:
    """Defazio et al. 2024 (arXiv 2405.15682)."""
    return TorchOptimizer(reference, _library("schedulefree", "AdamWScheduleFree"))


def _prodigy(reference: AdamW) -> Stepper:
    """Mishchenko and Defazio 2023 (arXiv 2306.06101), with its README's settings."""
    settings = {"safeguard_warmup": True, "use_bias_correction": True}
    return TorchOptimizer(
        reference, partial(_library("prodigyopt", "Prodigy"), **settings)
    )


OPTIMIZERS: dict[str, OptimizerMethod] = {
    "schedule_free": OptimizerMethod(_schedule_free, "constant"),
    "prodigy": OptimizerMethod(_prodigy, "cosine_to_zero", learning_rate=1.0),
    "hypergradient": OptimizerMethod(HypergradientAdamW, "constant"),
}

# Named on its own: `compare_agents.py` runs all `OPTIMIZERS` by default.
CONTROLLER = OptimizerMethod(ControlledAdamW, "constant", warmup=False)
