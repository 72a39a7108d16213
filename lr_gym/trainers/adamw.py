"""AdamW for a population: each member has its own learning rate and clipping.

The weights of E members are the rows of one (E, P) matrix. An update is then a few
tensor operations, for any number of members or layers. Tests check it against
`torch.optim.AdamW`. Reference: Loshchilov and Hutter 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-8  # torch's default, added outside the square root


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay and gradient clipping; holds no tensors.

    The state of a population is a dictionary of tensors, one row per member:

    ==================  ========  =====================================================
    ``parameters``      (E, P)    float32 master weights
    ``exp_avg``         (E, P)    first moment
    ``exp_avg_sq``      (E, P)    second moment
    ``updates``         (E,)      int64, updates so far: Adam's bias correction
    ``learning_rate``   (E,)      float64, the learning rate of the last update
    ==================  ========  =====================================================

    Attributes:
        n_decayed: Weight decay acts on the first `n_decayed` of the P weights: the
            matrices.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        weight_decay: Decoupled weight decay.
        grad_clip: Largest gradient norm of a member; 0 does not clip.
    """

    n_decayed: int
    beta1: float
    beta2: float
    weight_decay: float
    grad_clip: float

    def step(
        self,
        state: dict[str, Tensor],
        gradients: Tensor,
        lr: Tensor,
        diverged: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Update every member that has not diverged, in place.

        Args:
            state: See the class; changed in place. ``learning_rate`` records `lr` for
                the members that are updated.
            gradients: (E, P) float32; may hold non-finite numbers.
            lr: Learning rates, (E,) float64.
            diverged: (E,) bool. These members' state stays bit for bit as it is.

        Returns:
            Gradient norms before clipping, (E,), and `diverged`, which now includes
            members with a gradient that is not finite. They were not updated either.
        """
        norms = gradients.norm(dim=1)  # (E,)
        diverged = diverged | ~norms.isfinite()
        state["updates"].add_(~diverged)
        if torch.compiler.is_compiling():
            self._update_all(state, gradients, norms, lr, diverged)
        else:
            self._update_each(state, gradients, norms, lr, diverged)
        # Recorded beside the update, and nowhere else: `info["optimizer_lr"]` reads it.
        used = state["learning_rate"]
        used.copy_(used.where(diverged, lr))
        return norms, diverged

    def _update_each(
        self,
        state: dict[str, Tensor],
        gradients: Tensor,
        norms: Tensor,
        lr: Tensor,
        diverged: Tensor,
    ) -> None:
        """Update with torch's fused kernel, which reads and writes every weight once.

        The kernel takes one learning rate and one weight decay, so it runs twice per
        member. Tensor operations over all members are several times slower: each of
        them reads the whole matrix again.
        """
        skip = diverged.float()  # the kernel changes nothing where this is 1
        scale = ((norms + 1e-6) / (self.grad_clip or torch.inf)).clamp(min=1.0)
        counts = state["updates"].float()
        if not lr.is_cpu:
            lr = lr.float()  # CUDA's kernel reads the learning rate as float32
        for member in range(len(gradients)):
            for part, weight_decay in (
                (slice(None, self.n_decayed), self.weight_decay),
                (slice(self.n_decayed, None), 0.0),
            ):
                torch._fused_adamw_(
                    [state["parameters"][member, part]],
                    [gradients[member, part]],
                    [state["exp_avg"][member, part]],
                    [state["exp_avg_sq"][member, part]],
                    [],
                    [counts[member]],
                    lr=lr[member],
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
        lr: Tensor,
        diverged: Tensor,
    ) -> None:
        """Update all members by tensor operations, which a compiler fuses into one."""
        if self.grad_clip > 0:
            scale = (self.grad_clip / (norms + 1e-6)).clamp(max=1.0)
            gradients = gradients * scale[:, None]
        updated = ~diverged[:, None]  # (E, 1)
        gradients = gradients.where(updated, 0.0)
        lr = lr.where(~diverged, 0.0)  # (E,)

        parameters, mean, square = (
            state[name] for name in ("parameters", "exp_avg", "exp_avg_sq")
        )
        decay = (1.0 - lr * self.weight_decay).to(parameters.dtype)
        parameters[:, : self.n_decayed].mul_(decay[:, None])
        new_mean = mean.lerp(gradients, 1.0 - self.beta1)
        mean.copy_(new_mean.where(updated, mean))
        new_square = torch.addcmul(
            square * self.beta2, gradients, gradients, value=1.0 - self.beta2
        )
        square.copy_(new_square.where(updated, square))

        count = state["updates"].clamp(min=1).to(lr.dtype)
        step_size = lr / (1.0 - self.beta1**count)
        root = (1.0 - self.beta2**count).sqrt()
        denominator = square.sqrt().div_(root.to(square.dtype)[:, None]).add_(EPS)
        step = (mean / denominator).mul_(step_size.to(mean.dtype)[:, None])
        parameters.sub_(step)


def initial_state(parameters: Tensor) -> dict[str, Tensor]:
    """Return the state of members that start from `parameters`, (E, P)."""
    members = parameters.shape[0]
    device = parameters.device
    return {
        "parameters": parameters,
        "exp_avg": torch.zeros_like(parameters),
        "exp_avg_sq": torch.zeros_like(parameters),
        "updates": torch.zeros(members, dtype=torch.int64, device=device),
        "learning_rate": torch.zeros(members, dtype=torch.float64, device=device),
    }
