"""How far an update may move a layer's outputs: measured by trainer and controller."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lr_gym.config import ARCHITECTURES
from lr_gym.controllers.update_size import UpdateSize
from tests.small import small_trainer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_update_size_is_of_the_median_matrix_and_width(architecture: str) -> None:
    trainer = small_trainer(2, architecture=architecture)
    trainer.reset([0, 1], [0, 1])
    trainer.train(3, [1e-2, 1e-3])
    before = [trainer.model(member) for member in (0, 1)]
    trainer.train(1, [1e-2, 1e-3])
    for member, old in enumerate(before):
        new = [w for w in trainer.model(member).parameters() if w.dim() > 1]
        was = [w for w in old.parameters() if w.dim() > 1]
        moved = [
            float((a - b).detach().norm()) / math.sqrt(len(a))
            for a, b in zip(new, was, strict=True)
        ]
        width = np.median([weight.shape[1] for weight in new])
        expected = float(np.median(moved)) * math.sqrt(width)
        measured = trainer.telemetry()["update_size"][member]
        assert measured == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("width", [16, 48])
def test_the_size_of_adams_first_update_is_rate_times_width(width: int) -> None:
    trainer = small_trainer(n_embd=width, weight_decay=0.0)
    trainer.reset([0], [0])
    trainer.train(1, [1e-3])  # every weight moves by the rate
    size = trainer.telemetry()["update_size"]
    assert size == pytest.approx(1e-3 * width, rel=1e-2)


def test_half_precision_counts_and_frozen_weights_and_vectors_do_not() -> None:
    half = nn.Parameter(torch.zeros(300, 300, dtype=torch.float16))
    one, two, frozen = (nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    vector = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([half, one, two, vector, frozen], lr=1.0)
    for weight, gradient in ((half, 250.0), (one, 1.0), (two, 1e4), (vector, 1e5)):
        weight.grad = torch.full_like(weight, gradient)
    measured = UpdateSize(optimizer)
    measured.before_update()
    optimizer.step()
    measured.after_update()  # the norm of 75,000 is beyond half precision
    expected = pytest.approx(250.0 * math.sqrt(300) * math.sqrt(2), rel=1e-3)
    assert measured.value == expected, "the middle one of three matrices, and width"


def test_the_columns_of_a_kernel_are_all_that_an_output_sees() -> None:
    kernel = nn.Parameter(torch.zeros(4, 3, 2))
    kernel.grad = torch.ones_like(kernel)
    optimizer = torch.optim.SGD([kernel], lr=0.5)
    measured = UpdateSize(optimizer)
    measured.before_update()
    optimizer.step()
    measured.after_update()
    assert measured.value == pytest.approx(0.5 * 3 * 2), "each moved by the rate"
