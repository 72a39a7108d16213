"""The code path of a GPU on any machine: kernels get arguments that CUDA accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lr_gym import PopulationTrainer, load_corpus
from lr_gym.config import ARCHITECTURES
from lr_gym.controllers import PolicyLR, UpdateSizeRule
from tests.helpers.accelerator import DEVICE, Accelerator
from tests.helpers.small import small_config


@pytest.fixture
def gpu() -> Iterator[Accelerator]:
    with Accelerator() as mode:
        yield mode


def trainer_on_gpu(size: int, **overrides: Any) -> PopulationTrainer:
    config = small_config(device=DEVICE, **overrides)
    return PopulationTrainer(config, load_corpus("markov"), size)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("precision", "dropout"), [("float32", 0.0), ("bfloat16", 0.2)]
)
@pytest.mark.parametrize("size", [1, 3])
def test_a_chunk_passes_valid_arguments_and_never_waits(
    size: int, dropout: float, precision: str, architecture: str, gpu: Accelerator
) -> None:
    trainer = trainer_on_gpu(
        size, precision=precision, dropout=dropout, architecture=architecture
    )
    trainer.reset(range(size), range(size))
    waits_so_far: list[int] = []
    trainer.train(
        4, np.full(size, 1e-3), on_iteration=lambda: waits_so_far.append(len(gpu.waits))
    )
    assert len(waits_so_far) >= 4
    assert len(set(waits_so_far[:4])) == 1  # nothing waits between updates
    assert gpu.fused == 4 * size * 2  # matrices and vectors of every member


def test_the_step_as_it_is_compiled_takes_the_same_path(
    gpu: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for size in (1, 3):
        trainer = trainer_on_gpu(size, dropout=0.2, precision="bfloat16")
        waits: list[int] = []

        def note(seen: list[int] = waits) -> None:
            seen.append(len(gpu.waits))

        trainer.train(3, np.full(size, 1e-3), on_iteration=note)
        assert len(set(waits)) == 1
    assert gpu.fused == 0


def test_undo_evaluation_and_generation_stay_on_the_device(gpu: Accelerator) -> None:
    """Also partial groups and both kinds of evaluation."""
    for evaluation in ("fixed", "paper"):
        trainer = trainer_on_gpu(3, dropout=0.2, evaluation=evaluation, eval_iters=2)
        trainer.reset([0, 2], [1, 2])
        before = trainer.snapshot([0, 2])
        trainer.train([3, 0, 1], np.full(3, 1e-3))
        trainer.restore([0, 2], before, rewind=False)
        trainer.load_state_dict(trainer.state_dict())
        assert trainer.evaluate().shape == (3,)
        assert trainer.evaluate(members=[2]).shape == (1,)
        assert trainer.evaluate("test", exact=True).shape == (3,)
        assert trainer.telemetry()["update_size"].shape == (3,)
        assert trainer.diverged().shape == (3,)
    assert gpu.fused == (3 + 1) * 2 * 2
    prompt = torch.zeros((2, 1), dtype=torch.int64, device=DEVICE)
    assert trainer.model(1).generate(prompt, 20, top_k=5).shape == (2, 21)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("scale", [2.0**8, 2.0**127])
def test_a_controller_in_a_loop_with_autocast_and_a_scaler(
    scale: float, as_tensor: bool
) -> None:
    """On the CPU, whose fused kernel has the same arguments; overflow skips updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    rate = torch.tensor(1e-2) if as_tensor else 1e-2
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    rule = UpdateSizeRule()
    controller = PolicyLR(optimizer, rule, interval=5, max_iters=40, undo=model)
    x = torch.randn(64, 4)
    with Accelerator() as mode:
        for _ in range(40):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = (10.0 * model(x) - x[:, :1]).square().mean()
            if controller.needs_evaluation:
                controller.step(loss.detach())
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert mode.fused > 0
    assert loss.isfinite()
    now = optimizer.param_groups[0]["lr"]
    assert isinstance(now, torch.Tensor) == as_tensor
    assert float(now) == pytest.approx(float(controller.get_last_lr()[0]), rel=1e-6)
