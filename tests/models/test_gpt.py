"""The paper's model: its published size and GPT-2's first weights."""

from __future__ import annotations

import math

import pytest
import torch

from lr_gym.models.gpt import GPT
from lr_gym.models.language_model import initial_parameters


def test_the_papers_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = GPT(vocab_size=65, block_size=256, n_layer=6, n_head=6, n_embd=384)
    total = sum(p.numel() for p in model.parameters())
    # nanoGPT reports 10.65 M, which leaves out the position embedding.
    assert total - model.position_embedding.weight.numel() == 10_646_784


def test_initialization_follows_gpt2() -> None:
    with torch.device("meta"):
        model = GPT(
            vocab_size=64, block_size=16, n_layer=2, n_head=4, n_embd=128, bias=True
        )
    weights = initial_parameters(model, torch.Generator().manual_seed(0))
    for name, weight in weights.items():
        if name.endswith("bias"):
            assert torch.all(weight == 0)
        elif weight.ndim == 1:
            assert torch.all(weight == 1)
        else:
            std = 0.02 / math.sqrt(4) if name.endswith("proj.weight") else 0.02
            assert weight.std().item() == pytest.approx(std, rel=0.1)


def test_a_full_context_is_cut_to_its_half_and_read_again() -> None:
    model = GPT(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16)
    weights = initial_parameters(model, torch.Generator().manual_seed(0))
    model.load_state_dict(weights)
    expected = torch.randint(11, (1, 8), generator=torch.Generator().manual_seed(0))
    for added in range(10):
        seen = expected[:, -(8 if added == 0 else 4 + (added - 1) % 5) :]
        best = model(seen)[:, -1].argmax(dim=1, keepdim=True)
        expected = torch.cat((expected, best), dim=1)
    assert torch.equal(model.generate(expected[:, :8], 10, top_k=1), expected)
