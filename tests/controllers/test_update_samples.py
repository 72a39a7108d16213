"""Large weights are measured on samples: these stand for the whole weight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lr_gym.controllers.update_meter import UpdateMeter


def centre_of_kernels() -> Tensor:
    where = torch.zeros(256, 256, 3, 3)
    where[:, :, 1, 1] = 1.0
    return where


def last_columns() -> Tensor:
    where = torch.zeros(1024, 1024)
    where[:, -64:] = 1.0
    return where


def odd_columns() -> Tensor:
    where = torch.zeros(1000, 500)
    where[:, 1::2] = 1.0
    return where


@pytest.mark.parametrize("moves", [centre_of_kernels, last_columns, odd_columns])
def test_a_sample_sees_updates_of_a_part_of_a_weight(
    moves: Callable[[], Tensor],
) -> None:
    where = moves()
    weight = nn.Parameter(torch.ones_like(where))
    weight.grad = where.clone()
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    meter = UpdateMeter(optimizer)
    for _ in range(2):
        meter.before()
        optimizer.step()
        measure = meter.after()
    total = 1e-3 * float(where.sum())  # of -g u
    assert -measure.own == pytest.approx(total, rel=0.1)
    assert -measure.later == pytest.approx(total, rel=0.1)
