"""Checks of arguments: extreme numbers, numbers of other libraries, whole mappings."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from lr_gym import MDPConfig, preset
from lr_gym.validation import (
    check_complete,
    check_count,
    check_integer,
    check_real,
    read_number,
)


@pytest.mark.parametrize("value", [10**400, -(10**400), math.nan, Fraction(10**400)])
def test_a_number_that_no_float_holds_is_not_finite(value: Any) -> None:
    with pytest.raises(ValueError, match=r"x must be finite and in \[0, inf\)"):
        check_real("x", value, 0.0)


@pytest.mark.parametrize("value", [1e-40, 5e-324, 1e31, 1e308, 10**40])
def test_a_number_whose_products_overflow_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"x must be in \[1e-30, 1e\+30\]"):
        check_real("x", value, 0.0, low_open=True)


@pytest.mark.parametrize(
    "value", [True, np.True_, np.array(3), torch.tensor(3), 3.0, "3"]
)
def test_only_integers_are_integers(value: Any) -> None:
    with pytest.raises(TypeError, match="x must be an integer, got"):
        check_integer("x", value, 0)


def test_an_integer_has_an_upper_limit() -> None:
    with pytest.raises(ValueError, match="x must be at most 1000000000, got"):
        check_integer("x", 10**10, 0)
    with pytest.raises(ValueError, match="got an integer of 20001 bits"):
        check_integer("x", 2**20_000, 0)  # Python refuses to print it
    with pytest.raises(ValueError, match="x must be at most 7, got 8"):
        check_count("x", 8, 7)


def test_a_mapping_must_have_all_keys_and_no_others() -> None:
    with pytest.raises(TypeError, match="the record lacks seed"):
        check_complete("the record", {"loss": 1.0}, ("loss", "seed"))
    with pytest.raises(TypeError, match="the record has an unknown key 'los'; did you"):
        check_complete("the record", {"los": 1.0}, ("loss",))


def test_configurations_store_numpys_numbers_as_json() -> None:
    training = preset("tiny", learning_rate=np.float32(0.5), warmup_iters=np.int64(3))
    factors: Any = (np.float32(0.5), 1.0)
    config = MDPConfig(lr_factors=factors, max_lr=10**20)
    for stored in (training, config):
        json.dumps(dataclasses.asdict(stored))
    assert (training.learning_rate, training.warmup_iters) == (0.5, 3)
    assert config.lr_factors == (0.5, 1.0)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (np.array([2.0]), 2.0),
        (torch.tensor(2.0, requires_grad=True), 2.0),
        (2, 2.0),
        (1e300, math.inf),
        (10**400, math.inf),
    ],
)
def test_a_measured_number(value: Any, number: float) -> None:
    assert read_number("loss", value) == number


@pytest.mark.parametrize("value", [None, True, "1.0", b"1", [1.0], np.zeros(2), 1j])
def test_what_is_no_measured_number_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="loss must be a number, got"):
        read_number("loss", value)
