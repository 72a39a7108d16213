"""The size of an update, as the trainer and the controller measure it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lr_gym.config import ARCHITECTURES
from lr_gym.controllers.update_size import UpdateSizeMeter
from lr_gym.trainers.update_size import update_size
from tests.helpers.small import small_trainer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("width", [16, 192])
def test_the_size_is_the_larger_of_output_and_weight_change(
    architecture: str, width: int
) -> None:
    trainer = small_trainer(2, architecture=architecture, n_embd=width)
    trainer.reset([0, 1], [0, 1])
    trainer.train(3, [1e-2, 1e-3])
    before = [trainer.model(member) for member in (0, 1)]
    trainer.train(1, [1e-2, 1e-3])
    for member, old in enumerate(before):
        new = [w for w in trainer.model(member).parameters() if w.dim() > 1]
        previous = [w for w in old.parameters() if w.dim() > 1]
        pairs = zip(new, previous, strict=True)
        moved = [float((a - b).detach().norm()) for a, b in pairs]
        rows = np.array([len(weight) for weight in new])
        columns = np.median([weight[0].numel() for weight in new])
        norms = np.array([float(weight.detach().norm()) for weight in previous])
        outputs = np.median(moved / np.sqrt(rows)) * np.sqrt(columns)
        weights = 1.2 * np.median(moved / norms)
        measured = trainer.telemetry()["update_size"][member]
        assert measured == pytest.approx(max(outputs, weights), rel=1e-4)


def test_the_size_of_adams_first_update() -> None:
    """Every weight moves by the rate, 1e-3; their deviation is 0.02 at any width."""
    sizes = {}
    for width in (16, 32, 96, 128):
        trainer = small_trainer(n_embd=width, weight_decay=0.0)
        trainer.reset([0], [0])
        trainer.train(1, [1e-3])
        sizes[width] = float(trainer.telemetry()["update_size"][0])
    assert sizes[96] == pytest.approx(1e-3 * 96, rel=1e-2), "outputs, by the width"
    assert sizes[128] == pytest.approx(1e-3 * 128, rel=1e-2)
    assert sizes[16] == pytest.approx(sizes[32], rel=0.1), "weights, at any width"
    assert sizes[16] > 1e-3 * 32


def test_each_member_has_a_size_and_zero_weights_add_no_weight_change() -> None:
    weights = torch.ones(3, 4, 1)  # of three members
    zero = torch.zeros_like(weights)
    change = torch.tensor([0.0, 0.1, 0.2])[:, None, None]
    sizes = update_size([weights], [weights + change])
    assert sizes.tolist() == pytest.approx([0.0, 0.12, 0.24])
    assert update_size([zero], [zero + change]).tolist() == pytest.approx([0, 0.1, 0.2])


def test_half_precision_counts_but_frozen_weights_and_vectors_do_not() -> None:
    half = nn.Parameter(torch.zeros(300, 300, dtype=torch.float16))
    one, two, frozen = (nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    vector = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([half, one, two, vector, frozen], lr=1.0)
    for weight, gradient in ((half, 250.0), (one, 1.0), (two, 1e4), (vector, 1e5)):
        weight.grad = torch.full_like(weight, gradient)
    measured = UpdateSizeMeter(optimizer)
    measured.before_update()
    optimizer.step()
    measured.after_update()  # the norm of 75,000 is beyond half precision
    expected = pytest.approx(250.0 * math.sqrt(300) * math.sqrt(2), rel=1e-3)
    assert measured.value == expected, "the middle one of three matrices, and width"


def test_the_columns_of_a_kernel_are_all_that_an_output_sees() -> None:
    kernel = nn.Parameter(torch.zeros(4, 3, 2))
    kernel.grad = torch.ones_like(kernel)
    optimizer = torch.optim.SGD([kernel], lr=0.5)
    measured = UpdateSizeMeter(optimizer)
    measured.before_update()
    optimizer.step()
    measured.after_update()
    assert measured.value == pytest.approx(0.5 * 3 * 2), "each moved by the rate"
