"""Optimizers that claim to need less of a schedule, on our own training runs.

A run differs from the environment's in its optimizer alone: same model, first weights,
batches, clipping and evaluation. The rate the environment sets is still the optimizer's
`lr`, so that a base schedule acts as its authors recommend.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lr_gym.config import TrainingConfig
from lr_gym.data.corpora import Corpus
from lr_gym.trainers.adamw import AdamW
from lr_gym.trainers.base import FloatArray
from lr_gym.trainers.population import PopulationTrainer

HYPER_STEP = 0.02  # of the hypergradient; chosen here: 50 agreeing updates make it e


class Stepper(Protocol):
    """What stands in the place of `lr_gym.trainers.adamw.AdamW`, for one run."""

    def start(self, parameters: Tensor) -> None:
        """Begin a run with the weights (1, P), which are changed in place."""

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
        """Build the run; `make` gets the settings of the environment's own AdamW."""
        super().__init__(config, corpus, 1)
        self.stepper = make(self.optimizer)
        self.optimizer = self.stepper  # type: ignore[assignment]  # the same `step`
        self._step = replace(self._step, optimizer=self.optimizer)
        self._compiled_step = None  # foreign code, as it is
        self.stepper.start(self._state["parameters"])

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start a fresh run, of weights and optimizer."""
        super().reset(members, seeds)
        self.stepper.start(self._state["parameters"])

    def evaluate(
        self,
        split: str = "val",
        *,
        exact: bool = False,
        members: Sequence[int] | None = None,
    ) -> FloatArray:
        """Return the loss of the weights that the optimizer means to be used."""
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
        build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        """Use `build`'s optimizer with `reference`'s decay and clipping."""
        self._reference = reference
        self._build = build

    def start(self, parameters: Tensor) -> None:
        """Build a fresh optimizer over views of `parameters`."""
        cut = self._reference.n_decayed
        flat = parameters[0].detach()
        self._parts = [nn.Parameter(flat[:cut]), nn.Parameter(flat[cut:])]
        decays = (self._reference.weight_decay, 0.0)
        self._optimizer = self._build(
            [
                {"params": [part], "weight_decay": decay}
                for part, decay in zip(self._parts, decays, strict=True)
            ]
        )
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
        cut = self._reference.n_decayed
        self._parts[0].grad, self._parts[1].grad = gradient[:cut], gradient[cut:]
        for group in self._optimizer.param_groups:
            group["lr"] = float(lr[0])
        self._optimizer.step()
        state["updates"].add_(1)
        state["learning_rate"].fill_(self._optimizer.param_groups[0]["lr"])
        return norms, diverged

    def evaluating(self, now: bool) -> None:
        """Tell optimizers that average (schedule-free) which weights are meant."""
        switch = getattr(self._optimizer, "eval" if now else "train", None)
        if switch is not None:
            switch()


class HypergradientAdamW:
    """AdamW whose rate follows the gradient of the loss with respect to itself.

    Baydin et al. 2018 (arXiv 1703.04782), the multiplicative form: the rate grows by
    `HYPER_STEP` times the cosine between the descent direction and the last update.
    """

    def __init__(self, reference: AdamW) -> None:
        """Use `reference` for the updates themselves."""
        self._reference = reference

    def start(self, parameters: Tensor) -> None:
        """Forget the last run."""
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
    """One such optimizer, with what its authors recommend around it."""

    make: Callable[[AdamW], Stepper]
    base_schedule: str
    learning_rate: float | None = None  # the middle of its grid; `None`: the task's


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
    """Defazio et al. 2024 (arXiv 2405.15682); betas as in the environment."""
    build = _library("schedulefree", "AdamWScheduleFree")
    betas = (reference.beta1, reference.beta2)
    return TorchOptimizer(reference, lambda groups: build(groups, betas=betas))


def _prodigy(reference: AdamW) -> Stepper:
    """Mishchenko and Defazio 2023 (arXiv 2306.06101), with its README's settings."""
    build = _library("prodigyopt", "Prodigy")
    betas = (reference.beta1, reference.beta2)
    return TorchOptimizer(
        reference,
        lambda groups: build(
            groups, betas=betas, safeguard_warmup=True, use_bias_correction=True
        ),
    )


OPTIMIZERS: dict[str, OptimizerMethod] = {
    "schedule_free": OptimizerMethod(_schedule_free, "constant"),
    "prodigy": OptimizerMethod(_prodigy, "cosine_to_zero", learning_rate=1.0),
    "hypergradient": OptimizerMethod(HypergradientAdamW, "constant"),
}
