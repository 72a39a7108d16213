"""The controller with Accelerate, before and after `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lr_gym.controllers import ControllerLR

accelerate = pytest.importorskip("accelerate")

UPDATES = 30


def make_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def batches(accumulate: int = 1) -> list[torch.Tensor]:
    return list(
        torch.randn(
            UPDATES * accumulate, 8, 4, generator=torch.Generator().manual_seed(1)
        )
    )


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(model(x), x[:, :1] * x[:, 1:2])


def plain_rates() -> list[float]:
    model, optimizer = make_model()
    controller = ControllerLR(optimizer, total_steps=UPDATES)
    for x in batches():
        optimizer.zero_grad()
        loss_of(model, x).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return list(controller.used_learning_rates())


def train(
    accelerator: Any, model: Any, optimizer: Any, controller: Any, accumulate: int = 1
) -> None:
    for x in batches(accumulate):
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, x))
            optimizer.step()
            controller.step()  # as for other schedulers
            optimizer.zero_grad()


@pytest.mark.parametrize("order", ["before", "after", "prepared"])
def test_the_rates_are_those_without_accelerate(order: str) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = make_model()
    if order == "after":
        model, optimizer = accelerator.prepare(model, optimizer)
        controller = ControllerLR(optimizer, total_steps=UPDATES)
    else:
        controller = ControllerLR(optimizer, total_steps=UPDATES)
        model, optimizer = accelerator.prepare(model, optimizer)
    if order == "prepared":
        controller = accelerator.prepare(controller)
    train(accelerator, model, optimizer, controller)
    used = controller.used_learning_rates().tolist()
    assert used == pytest.approx(plain_rates(), rel=1e-4)
    assert max(used) > 2 * used[0]
    assert controller.last_epoch == UPDATES


def test_prepare_keeps_metrics_and_checkpoints(tmp_path: Path) -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4)
    model, optimizer = make_model()
    controller = ControllerLR(optimizer, total_steps=UPDATES)
    model, optimizer, controller = accelerator.prepare(model, optimizer, controller)
    train(accelerator, model, optimizer, controller, accumulate=4)
    assert controller.last_epoch == UPDATES, "updates, not batches"
    assert controller.step(0.5).val_loss == 0.5
    accelerator.save_state(str(tmp_path))
    rates, state = controller.get_last_lr(), controller.state_dict()

    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = make_model()
    controller = ControllerLR(optimizer, total_steps=UPDATES)
    model, optimizer, controller = accelerator.prepare(model, optimizer, controller)
    accelerator.load_state(str(tmp_path))
    assert controller.state_dict() == state
    assert [group["lr"] for group in optimizer.param_groups] == rates
