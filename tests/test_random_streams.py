"""Streams: reproducible, uniform and independent of other draws."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch._inductor.utils import run_and_get_code

from lr_gym.random_streams import (
    fold_in,
    keep_mask,
    lowbias32,
    random_integers,
    stream_seeds,
)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**31 - 1))
def test_draws_stay_below_their_bound(key: int, bound: int) -> None:
    draws = random_integers(torch.tensor(key), 64, bound)
    assert draws.min() >= 0
    assert draws.max() < bound


def test_draws_are_uniform_across_counters_and_across_keys() -> None:
    for draws in (
        random_integers(torch.tensor(7), 50_000, 50),
        random_integers(torch.arange(50_000), 1, 50),
        random_integers(fold_in(torch.tensor(7), torch.arange(50_000)), 1, 50),
    ):
        counts = np.bincount(draws.flatten().numpy(), minlength=50)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_neighbouring_keys_and_counters_are_uncorrelated() -> None:
    draws = random_integers(torch.arange(300), 300, 2**31 - 1).double()
    for first, second in ((draws[1:], draws[:-1]), (draws[:, 1:], draws[:, :-1])):
        r = np.corrcoef(first.flatten(), second.flatten())[0, 1]
        assert abs(r) < 0.02  # 6 standard errors


def test_a_key_draws_the_same_alone_and_in_company() -> None:
    together = random_integers(torch.tensor([3, 9, 27]), 10, 1000)
    alone = random_integers(torch.tensor([9]), 10, 1000)
    assert torch.equal(together[1], alone[0])


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5])
def test_masks_drop_as_often_as_asked(probability: float) -> None:
    mask = keep_mask(torch.tensor(5), torch.Size((400, 250)), probability)
    assert mask.dtype == torch.bool
    assert abs(mask.float().mean().item() - (1 - probability)) < 0.01


def test_streams_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    random_integers(torch.tensor(1), 10, 10)
    keep_mask(torch.tensor(1), torch.Size((10,)), 0.5)
    stream_seeds(3, 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_stream_is_pinned() -> None:
    # Data order and dropout of every published result depend on these numbers.
    assert random_integers(torch.tensor(42), 4, 1000).tolist() == [101, 7, 737, 930]
    assert stream_seeds(0, 2) == [2968811710, 3677149159]


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.999))
def test_a_mask_hashed_in_32_bits_is_that_of_64(key: int, probability: float) -> None:
    counter = torch.arange(91).view(7, 13)
    hashed = lowbias32(torch.tensor(key) ^ (counter * 0x9E3779B9))
    mask = keep_mask(torch.tensor(key), torch.Size((7, 13)), probability)
    assert torch.equal(mask, hashed >= int(probability * 2**32))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_the_code_of_a_compiled_mask_stays_within_32_bits() -> None:
    # A larger constant is an error in Triton, though not in a CPU's code.
    def kept_sums(x: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return torch.where(keep_mask(key, x.shape, 0.2), x, 0.0).sum(0)

    x, key = torch.ones(4, 32, 64), torch.tensor(2**31 + 5)
    compiled = torch.compile(kept_sums, fullgraph=True, dynamic=False)
    sums, (code,) = run_and_get_code(compiled, x, key)
    assert torch.equal(sums, kept_sums(x, key))
    constants = [int(digits) for digits in re.findall(r"-?\d+", code)]
    assert -1640531527 in constants  # of the hash
    assert all(-(2**31) <= constant < 2**31 for constant in constants)
