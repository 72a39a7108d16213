"""The loss of a population: one plain module, many members' flat weights.

Shapes: E members, B batch, T time, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from lr_gym.config import TrainingConfig
from lr_gym.models import build_model
from lr_gym.models.language_model import LanguageModel, initial_parameters
from lr_gym.trainers.batches import IGNORE, even_parts
from lr_gym.trainers.update_size import update_size

# Most numbers in one activation of the residual stream, over all members of a pass.
# On a CPU larger passes fall out of the cache and cost up to twice as much per member
# (benchmarks/speed/throughput.py); on a GPU they have to fit its memory.
MAX_ACTIVATION_ELEMENTS = {"cpu": 2**18, "cuda": 2**26}
# On a CPU in float32 fewer members than this train faster one by one: `vmap` costs
# overhead and the fused attention, which only a GPU's knows how to batch.
MIN_VMAP_MEMBERS = 8
EVALUATION_TOKENS = 1_024  # a member's least share of a pass: its weights are read once

Losses: TypeAlias = Callable[
    [Tensor, Tensor, str], Tensor
]  # as `PopulationLoss.losses`


class PopulationLoss:
    """Cross entropy and gradients of members whose weights are rows of a matrix."""

    def __init__(
        self, config: TrainingConfig, vocab_size: int, compute_dtype: torch.dtype
    ) -> None:
        """Describe the model.

        Args:
            config: The model's architecture and size.
            vocab_size: V.
            compute_dtype: Number format of activations; weights are cast to it.
        """
        self._config = config
        self._vocab_size = vocab_size
        self._model = self._skeleton()
        self.compute_dtype = compute_dtype
        # Matrices first: weight decay then acts on one slice of the flat vector.
        shapes = [(name, p.shape) for name, p in self._model.named_parameters()]
        shapes.sort(key=lambda item: len(item[1]) < 2)
        self.shapes: dict[str, torch.Size] = dict(shapes)
        self.dropout_sites = self._model.dropout_sites
        self.n_decayed = sum(s.numel() for _, s in shapes if len(s) >= 2)

    def initial_weights(self, seed: int) -> Tensor:
        """Draw the weights a run starts from, (P,) float32 on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        weights = initial_parameters(self._model, generator)
        return torch.cat([weights[name].flatten() for name in self.shapes])

    def module(self, flat: Tensor) -> LanguageModel:
        """Return an ordinary module that owns the weights `flat`, (P,)."""
        model = self._skeleton()
        model.load_state_dict(self._unflatten(flat), assign=True)
        return model

    def groups(
        self, members: int, tokens: int, device: torch.device
    ) -> Iterator[slice]:
        """Cut `members` into even groups that may share a pass of `tokens` each."""
        most = self._pass_tokens(device) // tokens
        alone = device.type == "cpu" and self.compute_dtype == torch.float32
        if (
            most < 1
            or (alone and min(most, members) < MIN_VMAP_MEMBERS)
            or not self._model.members_share_passes
        ):
            most = 1
        count = -(-members // most)
        edges = [members * i // count for i in range(count + 1)]
        return map(slice, edges[:-1], edges[1:])

    def _pass_tokens(self, device: torch.device) -> int:
        numbers = MAX_ACTIVATION_ELEMENTS.get(
            device.type, MAX_ACTIVATION_ELEMENTS["cuda"]
        )
        return numbers // self._config.n_embd

    def gradients(
        self, parameters: Tensor, windows: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return mean losses (E,) and their gradients (E, P).

        Args:
            parameters: (E, P) float32.
            windows: (E, B, T + 1) int64.
            keys: (E, `dropout_sites`) int64, the keys of each member's dropout masks.
        """
        if len(parameters) > 1:
            step = grad_and_value(partial(self._loss, vmapped=True))
            gradients, losses = vmap(step)(parameters, windows, keys)
            return losses, gradients
        if torch.compiler.is_compiling():  # no vmap to pay for
            step = grad_and_value(self._loss)
            gradient, loss = step(parameters[0], windows[0], keys[0])
        else:  # nor functional transforms
            flat = parameters[0].detach().requires_grad_()
            loss = self._loss(flat, windows[0], keys[0])
            (gradient,) = torch.autograd.grad(loss, flat)
        return loss.detach()[None], gradient[None]

    def losses(self, parameters: Tensor, windows: Tensor, reduction: str) -> Tensor:
        """Return all members' losses (E,) on windows (E, B, T + 1), without dropout."""
        if len(parameters) == 1:
            return self._loss(parameters[0], windows[0], None, reduction)[None]
        loss = partial(self._loss, dropout_keys=None, reduction=reduction, vmapped=True)
        return vmap(loss)(parameters, windows)

    def total_loss(
        self, parameters: Tensor, windows: Tensor, losses: Losses | None = None
    ) -> Tensor:
        """Return members' summed losses on all `windows` (N, T + 1): (E,) float64.

        Args:
            parameters: (E, P) float32.
            windows: int64.
            losses: `losses`, compiled: it is given parts of one size.
        """
        total = parameters.new_zeros(len(parameters), dtype=torch.float64)
        device = parameters.device
        length = windows.shape[1] - 1
        for rows in self.groups(len(parameters), EVALUATION_TOKENS, device):
            weights = parameters[rows]
            # Twice a training pass: nothing is kept for a backward pass.
            most = max(1, 2 * self._pass_tokens(device) // (len(weights) * length))
            parts = (
                torch.split(windows, most)
                if losses is None
                else even_parts(windows, most)
            )
            for part in parts:
                shared = part.expand(len(weights), *part.shape)
                total[rows] += (losses or self.losses)(weights, shared, "sum").double()
        return total

    def update_size(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the size of an update of the matrices, (E,); see `update_size`.

        Args:
            before: (E, P) weights.
            after: (E, P), one update later.
        """
        return update_size(self._matrices(before), self._matrices(after))

    def _matrices(self, flat: Tensor) -> list[Tensor]:
        """Return the matrices, (E, ...) each, of flat weights (E, P)."""
        shapes = [shape for shape in self.shapes.values() if len(shape) >= 2]
        counts = [shape.numel() for shape in shapes]
        parts = torch.split(flat[:, : self.n_decayed], counts, dim=1)
        pairs = zip(parts, shapes, strict=True)
        return [part.reshape(len(flat), *shape) for part, shape in pairs]

    def _loss(
        self,
        flat: Tensor,
        windows: Tensor,
        dropout_keys: Tensor | None,
        reduction: str = "mean",
        vmapped: bool = False,
    ) -> Tensor:
        """Cross entropy of one member with flat weights (P,) on windows (B, T + 1)."""
        inputs, targets = windows[:, :-1], windows[:, 1:]
        weights = self._unflatten(flat.to(self.compute_dtype))
        inputs = inputs.clamp(min=0)  # padding never reaches a scored position
        logits = functional_call(  # (B, T, V)
            self._model, weights, (inputs, dropout_keys), {"vmapped": vmapped}
        )
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORE,
            reduction=reduction,
        )

    def _skeleton(self) -> LanguageModel:
        """Return the model without weights: names and shapes, no random numbers."""
        with torch.device("meta"):
            return build_model(self._config, self._vocab_size)

    def _unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut a flat (P,) vector into named weights; its gradient is one `cat`."""
        parts = torch.split(flat, [shape.numel() for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
