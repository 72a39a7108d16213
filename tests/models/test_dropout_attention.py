"""Attention with dropout as one operation equals plain products, to rounding."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lr_gym.models import dropout_attention
from lr_gym.random_streams import fold_in
from lr_gym.trainers.loss import PopulationLoss
from tests.helpers.small import small_config

MEMBERS = 3
CASES = [(1, 16, 1), (2, 24, 1), (2, 12, 2)]  # heads, width, layers
Gradients = Callable[..., tuple[Tensor, Tensor]]


def case(
    heads: int, width: int, layers: int, dtype: torch.dtype = torch.float32
) -> tuple[PopulationLoss, tuple[Tensor, Tensor, Tensor]]:
    """Return an objective and its inputs: weights large enough for uneven attention."""
    config = small_config(n_head=heads, n_embd=width, n_layer=layers, dropout=0.2)
    population_loss = PopulationLoss(config, 11, dtype)
    generator = torch.Generator().manual_seed(0)
    weights = torch.stack([population_loss.initial_weights(i) for i in range(MEMBERS)])
    weights += 0.3 * torch.randn(weights.shape, generator=generator)
    windows = torch.randint(11, (MEMBERS, 4, 17), generator=generator)
    sites = torch.arange(population_loss.dropout_sites)
    keys = fold_in(torch.arange(MEMBERS).unsqueeze(1), sites)
    return population_loss, (weights, windows, keys)


def one_by_one(gradients: Gradients, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return every member's loss and gradient, each computed alone."""
    rows = [gradients(*(x[i : i + 1] for x in inputs)) for i in range(MEMBERS)]
    return [torch.cat(parts) for parts in zip(*rows, strict=True)]


def assert_equal_to_rounding(
    actual: tuple[Tensor, ...], expected: list[Tensor], bound: float = 3e-6
) -> None:
    for x, y in zip(actual, expected, strict=True):
        assert (x - y).norm() <= bound * y.norm()


@pytest.fixture
def attend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda how: monkeypatch.setattr(dropout_attention, "ATTENTION", how)


def test_a_cpu_attends_by_plain_products(attend: Callable[[str], None]) -> None:
    x = torch.ones(1)
    attend("auto")
    assert not dropout_attention.use_fused_attention(x)
    attend("fused")
    assert dropout_attention.use_fused_attention(x)
    attend("plain")
    assert not dropout_attention.use_fused_attention(x)


@pytest.mark.parametrize("shape", CASES)
def test_a_member_trains_as_by_plain_products(
    attend: Callable[[str], None], shape: tuple[int, int, int]
) -> None:
    population_loss, inputs = case(*shape)
    attend("plain")
    plain = one_by_one(population_loss.gradients, inputs)
    attend("fused")
    fused = one_by_one(population_loss.gradients, inputs)
    assert_equal_to_rounding(tuple(fused), plain)


@pytest.mark.parametrize("shape", CASES)
def test_members_in_one_pass_have_the_same_masks_as_alone(
    attend: Callable[[str], None], shape: tuple[int, int, int]
) -> None:
    population_loss, inputs = case(*shape)
    attend("plain")
    alone = one_by_one(population_loss.gradients, inputs)
    attend("fused")
    assert_equal_to_rounding(population_loss.gradients(*inputs), alone)


def test_bfloat16_differs_by_its_rounding(attend: Callable[[str], None]) -> None:
    population_loss, inputs = case(2, 16, 1, torch.bfloat16)
    attend("plain")
    plain = population_loss.gradients(*inputs)
    attend("fused")
    assert_equal_to_rounding(
        population_loss.gradients(*inputs), list(plain), bound=0.02
    )


def test_the_axis_of_members_may_be_any_axis() -> None:
    qkv = torch.randn(5, 2, MEMBERS, 24, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(MEMBERS)
    attention = dropout_attention.dropout_attention
    each = [attention(qkv[:, :, i], keys[i], 2, 0.5) for i in range(MEMBERS)]
    in_dims = (2, 0, None, None)
    together = torch.func.vmap(attention, in_dims)(qkv, keys, 2, 0.5)
    torch.testing.assert_close(together, torch.stack(each))
    shared = torch.func.vmap(attention, (None, 0, None, None))(qkv[:, :, 0], keys, 2, 0)
    torch.testing.assert_close(shared[1], shared[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize("members", [1, MEMBERS])
def test_the_compiled_operation_is_the_same(
    attend: Callable[[str], None], members: int
) -> None:
    attend("fused")
    population_loss, inputs = case(2, 24, 1)
    weights, windows, keys = (x[:members] for x in inputs)
    torch.compiler.reset()
    compiled = torch.compile(population_loss.gradients, fullgraph=True, dynamic=False)
    expected = list(population_loss.gradients(weights, windows, keys))
    assert_equal_to_rounding(compiled(weights, windows, keys), expected)


if importlib.util.find_spec("triton") is not None:

    @pytest.mark.slow
    def test_the_kernels_agree_with_the_reference_in_tritons_interpreter() -> None:
        env = os.environ | {"TRITON_INTERPRET": "1"}
        command = [sys.executable, "-m", "tests.helpers.interpreted_attention"]
        run = subprocess.run(command, env=env, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        cases = json.loads(run.stdout)
        assert {c["dtype"] for c in cases} == {"torch.float32", "torch.bfloat16"}
        for measured in cases:
            bound = 1e-6 if measured["dtype"] == "torch.float32" else 0.02
            assert max(measured["errors"].values()) < bound, measured
