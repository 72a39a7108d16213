"""The receptive field of the convolutions is the stated one."""

from __future__ import annotations

import pytest
import torch

from lr_gym import preset
from lr_gym.config import SCALES
from lr_gym.models import build_model
from lr_gym.models.conv import Conv
from lr_gym.models.language_model import initial_parameters


@pytest.mark.parametrize("scale", SCALES)
def test_the_presets_see_a_whole_window(scale: str) -> None:
    config = preset(scale, architecture="conv")
    with torch.device("meta"):
        model = build_model(config, vocab_size=32)
    assert isinstance(model, Conv)
    assert model.receptive_field >= config.block_size


@pytest.mark.parametrize(
    ("n_layer", "block_size", "field"),
    [(2, 9, 9), (2, 10, 16), (3, 8, 8), (1, 6, 6), (1, 64, 8)],
)
def test_a_position_sees_only_its_receptive_field(
    n_layer: int, block_size: int, field: int
) -> None:
    model = Conv(vocab_size=11, block_size=block_size, n_layer=n_layer, n_embd=16)
    weights = initial_parameters(model, torch.Generator().manual_seed(0))
    model.load_state_dict(weights)
    assert model.receptive_field == field
    last = 20
    text = torch.zeros(last + 1, last + 1, dtype=torch.int64)
    text.fill_diagonal_(1)  # row t differs from the others at position t
    logits = model(text)[:, -1]  # (last + 1, V)
    plain = model(torch.zeros_like(text[:1]))[:, -1]
    seen = (logits != plain).any(dim=1)
    assert torch.equal(seen, torch.arange(last + 1) > last - field)
