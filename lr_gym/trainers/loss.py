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

# Most elements of one activation of the residual stream, over all members of a pass.
# Larger passes exceed a CPU's cache and cost up to twice as much per member
# (benchmarks/speed/throughput.py); on a GPU the limit is memory.
MAX_ACTIVATION_ELEMENTS = {"cpu": 2**18, "cuda": 2**26}
# On a CPU in float32, fewer members than this train faster one by one: `vmap` adds
# overhead, and torch's fused attention has no batching rule there.
MIN_VMAP_MEMBERS = 8
EVALUATION_TOKENS = 1_024  # an evaluation pass holds at least these per member

# The type of `PopulationLoss.losses`.
Losses: TypeAlias = Callable[[Tensor, Tensor, str], Tensor]


class PopulationLoss:
    """Cross entropy and gradients of E members; their weights are (E, P) rows."""

    def __init__(
        self, config: TrainingConfig, vocab_size: int, compute_dtype: torch.dtype
    ) -> None:
        """Describe the model.

        Args:
            config: The model's architecture and size.
            vocab_size: V.
            compute_dtype: Number format of activations and of the weights in use.
        """
        self._config = config
        self._vocab_size = vocab_size
        self._model = self._skeleton()
        self.compute_dtype = compute_dtype
        # Matrices come first: weight decay then acts on one slice of the flat vector.
        shapes = [(name, p.shape) for name, p in self._model.named_parameters()]
        shapes.sort(key=lambda item: len(item[1]) < 2)
        self.shapes: dict[str, torch.Size] = dict(shapes)
        self.dropout_sites = self._model.dropout_sites
        self.n_decayed = sum(s.numel() for _, s in shapes if len(s) >= 2)

    def lowest_memory(self, members: int) -> int:
        """Return bytes that training needs at least.

        These are weights and two moments of all members, and the gradients of one
        member with one activation per layer, which may be in half precision.
        """
        config = self._config
        activations = config.batch_size * config.block_size * config.n_embd
        weights = sum(shape.numel() for shape in self.shapes.values())
        return 4 * (3 * members + 1) * weights + 2 * activations * config.n_layer

    def initial_weights(self, seed: int) -> Tensor:
        """Draw a run's initial weights, (P,) float32 on the CPU."""
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
        """Split `members` into even groups that share a pass of `tokens` per member."""
        max_members = self._pass_tokens(device) // tokens
        slow_vmap = device.type == "cpu" and self.compute_dtype == torch.float32
        if (
            max_members < 1
            or (slow_vmap and min(max_members, members) < MIN_VMAP_MEMBERS)
            or not self._model.members_share_passes
        ):
            max_members = 1
        count = -(-members // max_members)
        edges = [members * i // count for i in range(count + 1)]
        return map(slice, edges[:-1], edges[1:])

    def _pass_tokens(self, device: torch.device) -> int:
        """Return the most tokens of a training pass, over all its members."""
        elements = MAX_ACTIVATION_ELEMENTS.get(
            device.type, MAX_ACTIVATION_ELEMENTS["cuda"]
        )
        return elements // self._config.n_embd

    def gradients(
        self, parameters: Tensor, windows: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return mean losses (E,) and their gradients (E, P).

        Args:
            parameters: (E, P) float32.
            windows: (E, B, T + 1) int64.
            keys: Keys of the dropout masks, (E, `dropout_sites`) int64.
        """
        if len(parameters) > 1:
            step = grad_and_value(partial(self._loss, vmapped=True))
            gradients, losses = vmap(step)(parameters, windows, keys)
            return losses, gradients
        if torch.compiler.is_compiling():  # one member needs no vmap
            step = grad_and_value(self._loss)
            gradient, loss = step(parameters[0], windows[0], keys[0])
        else:  # autograd is faster than functional transforms
            flat = parameters[0].detach().requires_grad_()
            loss = self._loss(flat, windows[0], keys[0])
            (gradient,) = torch.autograd.grad(loss, flat)
        return loss.detach()[None], gradient[None]

    def losses(self, parameters: Tensor, windows: Tensor, reduction: str) -> Tensor:
        """Return the losses (E,) on windows (E, B, T + 1), without dropout."""
        if len(parameters) == 1:
            return self._loss(parameters[0], windows[0], None, reduction)[None]
        loss = partial(self._loss, dropout_keys=None, reduction=reduction, vmapped=True)
        return vmap(loss)(parameters, windows)

    def total_loss(
        self, parameters: Tensor, windows: Tensor, losses: Losses | None = None
    ) -> Tensor:
        """Return each member's summed loss on all `windows`, (E,) float64.

        Args:
            parameters: (E, P) float32.
            windows: (N, T + 1) int64.
            losses: The compiled form of `losses`, called with parts of equal size.
        """
        total = parameters.new_zeros(len(parameters), dtype=torch.float64)
        device = parameters.device
        length = windows.shape[1] - 1
        for group in self.groups(len(parameters), EVALUATION_TOKENS, device):
            weights = parameters[group]
            # Twice a training pass: nothing is kept for a backward pass.
            size = max(1, 2 * self._pass_tokens(device) // (len(weights) * length))
            split = torch.split if losses is None else even_parts
            for part in split(windows, size):
                shared = part.expand(len(weights), *part.shape)
                total[group] += (losses or self.losses)(weights, shared, "sum").double()
        return total

    def update_size(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the size of an update of the matrices, (E,); see `update_size.py`.

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
        """Return one member's cross entropy; weights (P,), windows (B, T + 1)."""
        inputs, targets = windows[:, :-1], windows[:, 1:]
        weights = self._unflatten(flat.to(self.compute_dtype))
        inputs = inputs.clamp(min=0)  # padding comes after every scored position
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
        """Return the model on the meta device: names and shapes without weights."""
        with torch.device("meta"):
            return build_model(self._config, self._vocab_size)

    def _unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Split a flat (P,) vector into named weights; its gradient is one `cat`."""
        parts = torch.split(flat, [shape.numel() for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
