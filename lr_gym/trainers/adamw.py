"""AdamW over a population: every member has its own learning rate and clipping.

The weights of E members are the rows of one (E, P) matrix, so that an update is a few
tensor operations whatever the number of members or layers. Held equal to
`torch.optim.AdamW` by the tests. Reference: Loshchilov and Hutter 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-8  # torch's default, added outside the square root


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Decoupled weight decay Adam with gradient clipping; holds no tensors itself.

    The state of a population is a dictionary of tensors whose first axis is E:

    ==================  ========  =====================================================
    ``parameters``      (E, P)    float32 master weights
    ``exp_avg``         (E, P)    first moment
    ``exp_avg_sq``      (E, P)    second moment
    ``updates``         (E,)      int64, updates so far: Adam's bias correction
    ``learning_rate``   (E,)      float64, the rate that the next update uses
    ==================  ========  =====================================================

    Attributes:
        decayed: Weight decay acts on the first `decayed` of the P weights (matrices).
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        weight_decay: Decoupled weight decay.
        grad_clip: Largest gradient norm of a member; 0 does not clip.
    """

    decayed: int
    beta1: float
    beta2: float
    weight_decay: float
    grad_clip: float

    def step(
        self, state: dict[str, Tensor], gradients: Tensor, healthy: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update the healthy members in place, each at its own learning rate.

        Args:
            state: See the class; changed in place.
            gradients: (E, P) float32; may hold non-finite numbers.
            healthy: (E,) bool. Other members' weights stay bit for bit as they are.

        Returns:
            The gradient norms before clipping, (E,), and `healthy` without the members
            whose gradient is not finite: they were not updated either.
        """
        norms = gradients.norm(dim=1)  # (E,)
        healthy = healthy & norms.isfinite()
        state["updates"].add_(healthy)
        if torch.compiler.is_compiling():
            self._update_all(state, gradients, norms, healthy)
        else:
            self._update_each(state, gradients, norms, healthy)
        return norms, healthy

    def _update_each(
        self,
        state: dict[str, Tensor],
        gradients: Tensor,
        norms: Tensor,
        healthy: Tensor,
    ) -> None:
        """Update with torch's fused kernel, which reads and writes every weight once.

        It takes one learning rate, so it is called for each member and each of the two
        weight decays; that is still several times as fast as tensor operations over
        all members at once, each of which reads the whole matrix again.
        """
        skip = (~healthy).float()  # the kernel leaves everything alone where this is 1
        scale = ((norms + 1e-6) / (self.grad_clip or torch.inf)).clamp(min=1.0)
        counts = state["updates"].float()
        rates = state["learning_rate"]
        if not rates.is_cpu:
            rates = rates.float()  # CUDA's kernel reads a rate as float32
        for member in range(len(gradients)):
            for part, weight_decay in (
                (slice(None, self.decayed), self.weight_decay),
                (slice(self.decayed, None), 0.0),
            ):
                torch._fused_adamw_(
                    [state["parameters"][member, part]],
                    [gradients[member, part]],
                    [state["exp_avg"][member, part]],
                    [state["exp_avg_sq"][member, part]],
                    [],
                    [counts[member]],
                    lr=rates[member],
                    beta1=self.beta1,
                    beta2=self.beta2,
                    weight_decay=weight_decay,
                    eps=EPS,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=scale[member],
                    found_inf=skip[member],
                )

    def _update_all(
        self,
        state: dict[str, Tensor],
        gradients: Tensor,
        norms: Tensor,
        healthy: Tensor,
    ) -> None:
        """Update all members by tensor operations, which a compiler fuses into one."""
        if self.grad_clip > 0:
            scale = (self.grad_clip / (norms + 1e-6)).clamp(max=1.0)
            gradients = gradients * scale[:, None]
        updated = healthy[:, None]  # (E, 1)
        gradients = gradients.where(updated, 0.0)
        rate = state["learning_rate"].where(healthy, 0.0)  # (E,)

        parameters, mean, square = (
            state[name] for name in ("parameters", "exp_avg", "exp_avg_sq")
        )
        decay = (1.0 - rate * self.weight_decay).to(parameters.dtype)
        parameters[:, : self.decayed].mul_(decay[:, None])
        moved = mean.lerp(gradients, 1.0 - self.beta1)
        mean.copy_(moved.where(updated, mean))
        moved = torch.addcmul(
            square * self.beta2, gradients, gradients, value=1.0 - self.beta2
        )
        square.copy_(moved.where(updated, square))

        count = state["updates"].clamp(min=1).to(rate.dtype)
        rate = rate / (1.0 - self.beta1**count)
        root = (1.0 - self.beta2**count).sqrt()
        denominator = square.sqrt().div_(root.to(square.dtype)[:, None]).add_(EPS)
        step = (mean / denominator).mul_(rate.to(mean.dtype)[:, None])
        parameters.sub_(step)


def initial_state(parameters: Tensor) -> dict[str, Tensor]:
    """Return the optimizer state of fresh members with (E, P) `parameters`."""
    members = parameters.shape[0]
    device = parameters.device
    return {
        "parameters": parameters,
        "exp_avg": torch.zeros_like(parameters),
        "exp_avg_sq": torch.zeros_like(parameters),
        "updates": torch.zeros(members, dtype=torch.int64, device=device),
        "learning_rate": torch.zeros(members, dtype=torch.float64, device=device),
    }
