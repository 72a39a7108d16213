"""The ramp-and-undo rule as a state machine: losses in, decisions out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from lr_gym.controllers import Decision, RampAndUndo


def test_it_ramps_until_the_loss_rises_then_steps_back_and_holds() -> None:
    rule = RampAndUndo(start_factor=0.1, growth=2.0, undo_factor=4.0, tolerance=0.03)
    assert rule.decide(4.0, 0.0) == Decision(0.1)
    assert rule.decide(3.0, 0.1) == Decision(2.0)
    assert rule.decide(3.02, 0.2) == Decision(2.0), "an increase within the tolerance"
    assert rule.decide(3.06, 0.3) == Decision(0.25, undo=True)
    # The undo restored the weights with loss 3.02: the new reference.
    assert rule.decide(3.04, 0.4) == Decision(1.0)
    assert rule.decide(2.0, 0.5) == Decision(1.0), "it has stopped ramping"
    assert rule.decide(2.1, 0.6) == Decision(0.25, undo=True)


def test_the_reference_is_the_loss_that_an_undo_restores() -> None:
    rule = RampAndUndo()
    losses = [4.0, 3.0, 3.5, 3.2, 3.02]
    undos = [rule.decide(loss, 0.01 * i).undo for i, loss in enumerate(losses)]
    # 3.5 and 3.2 are undone: each undo restores the weights with loss 3.0.
    assert undos == [False, False, True, True, False]


def test_the_cooldown_is_one_minus_the_square_root() -> None:
    rule = RampAndUndo(start_factor=1.0, growth=1.0, cooldown=0.3)
    rate, rates = 1.0, []
    for progress in np.linspace(0.0, 1.0, 101):
        rate *= rule.decide(3.0, float(progress)).factor
        rates.append(rate)
    assert rates[:71] == pytest.approx([1.0] * 71)
    expected = [1.0 - math.sqrt((i - 70) / 30) for i in range(71, 100)]
    assert rates[71:100] == pytest.approx(expected)
    assert rates[100] == pytest.approx(1e-3)


def test_an_undo_within_the_cooldown_keeps_both_reductions() -> None:
    rule = RampAndUndo(start_factor=1.0, growth=1.0, cooldown=0.5)
    rate = 1.0
    for loss, progress in [(3.0, 0.0), (3.0, 0.5), (4.0, 0.625), (3.0, 0.75)]:
        rate *= rule.decide(loss, progress).factor
    assert rate == pytest.approx((1.0 - math.sqrt(0.5)) / 3.0)


def test_without_undo_it_goes_on_from_the_damaged_weights() -> None:
    rule = RampAndUndo(undo=False)
    rule.decide(4.0, 0.0)
    rule.decide(3.0, 0.1)
    assert rule.decide(5.0, 0.2) == Decision(1 / 3)
    assert rule.decide(5.01, 0.3) == Decision(1.0), "no increase over 5.0"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_increase(loss: float) -> None:
    rule = RampAndUndo()
    rule.decide(4.0, 0.0)
    assert rule.decide(loss, 0.1).undo
    assert rule.decide(3.0, 0.2) == Decision(1.0)


def test_it_can_start_without_a_loss() -> None:
    rule = RampAndUndo()
    assert rule.start() == Decision(1 / 300)
    assert rule.decide(9.0, 0.1) == Decision(2.0), "the first loss is no increase"
    assert rule.decide(9.1, 0.2).undo


def test_it_continues_from_its_saved_state() -> None:
    losses = [4.0, 3.5, 3.0, 3.5, 2.9, 3.2, 2.8, 2.7]
    rule = RampAndUndo()
    whole = [rule.decide(loss, i / 8) for i, loss in enumerate(losses)]
    for cut in range(len(losses)):
        first, second = RampAndUndo(), RampAndUndo()
        for i in range(cut):
            first.decide(losses[i], i / 8)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        rest = [second.decide(losses[i], i / 8) for i in range(cut, len(losses))]
        assert rest == whole[cut:]


def test_reset_forgets() -> None:
    rule = RampAndUndo()
    fresh = rule.state_dict()
    for i, loss in enumerate([4.0, 5.0, 6.0]):
        rule.decide(loss, i / 3)
    rule.reset()
    assert rule.state_dict() == fresh


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start_factor": 0.0}, "start_factor must be finite and in"),
        ({"growth": 0.5}, "growth must be"),
        ({"undo_factor": 1.0}, "undo_factor must be"),
        ({"cooldown": 1.0}, "cooldown must be"),
        ({"tolerance": -1.0}, "tolerance must be"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RampAndUndo(**wrong)
