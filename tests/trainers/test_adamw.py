"""AdamW: equal to torch's, member by member, each at its own learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lr_gym.trainers.adamw import AdamW, initial_state


@pytest.mark.parametrize("grad_clip", [0.0, 0.5])
def test_a_hundred_updates_equal_torchs_adamw(grad_clip: float) -> None:
    torch.manual_seed(0)
    size, n_decayed, rest = 3, 40, 10
    rates = torch.tensor([1e-3, 1e-2, 0.3], dtype=torch.float64)
    start = torch.randn(size, n_decayed + rest)
    reference: list[tuple[list[Tensor], torch.optim.AdamW]] = []
    for row, rate in zip(start, rates, strict=True):
        matrix = row[:n_decayed].clone().requires_grad_()
        vector = row[n_decayed:].clone().requires_grad_()
        groups = [
            {"params": [matrix], "weight_decay": 0.1},
            {"params": [vector], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=rate.item(), betas=(0.9, 0.99))
        reference.append(([matrix, vector], optimizer))

    ours = AdamW(
        n_decayed=n_decayed,
        beta1=0.9,
        beta2=0.99,
        weight_decay=0.1,
        grad_clip=grad_clip,
    )
    state = initial_state(start.clone())
    diverged = torch.zeros(size, dtype=torch.bool)
    for _ in range(100):
        gradients = torch.randn(size, n_decayed + rest)
        norms, diverged = ours.step(state, gradients.clone(), rates, diverged)
        torch.testing.assert_close(norms, gradients.norm(dim=1))
        for row, (weights, theirs) in zip(gradients, reference, strict=True):
            weights[1].grad = row[n_decayed:].clone()
            weights[0].grad = row[:n_decayed].clone()
            if grad_clip:
                torch.nn.utils.clip_grad_norm_(weights, grad_clip)
            theirs.step()
    assert not diverged.any()
    assert torch.equal(state["learning_rate"], rates)
    expected = torch.stack([torch.cat(weights) for weights, _ in reference]).detach()
    torch.testing.assert_close(state["parameters"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiling", [False, True])
def test_a_diverged_member_keeps_every_bit_of_its_state(
    compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    state = initial_state(torch.randn(3, 8))
    state["exp_avg"].normal_()
    state["exp_avg_sq"].uniform_()
    state["learning_rate"].fill_(1e-3)
    before = {name: value.clone() for name, value in state.items()}
    gradients = torch.randn(3, 8)
    gradients[1, 4] = torch.nan
    optimizer = AdamW(
        n_decayed=4, beta1=0.9, beta2=0.99, weight_decay=0.1, grad_clip=1.0
    )
    lr = torch.full((3,), 1e-2, dtype=torch.float64)
    diverged = torch.tensor([False, False, True])
    _, diverged = optimizer.step(state, gradients, lr, diverged)
    assert diverged.tolist() == [False, True, True]
    assert state["learning_rate"].tolist() == [1e-2, 1e-3, 1e-3]
    for name in state:
        assert torch.equal(state[name][1:], before[name][1:])
        assert not torch.equal(state[name][0], before[name][0])
    assert state["updates"].tolist() == [1, 0, 0]
    assert all(value.isfinite().all() for value in state.values())
