"""The rule alone: what the learning rate does at given alignments."""

from __future__ import annotations

import pytest

from lr_gym.controllers.climb import CLIMB_SHARE, LIFT, Climb

STEPS = 1_000
SIZE = 0.02  # of every update: the safe start ends at once


def climbed(alignment: float) -> float:
    """Return the factor after a climb at one alignment, over that at its start."""
    climb = Climb(STEPS)
    while climb.starting:
        climb.observe(SIZE, -alignment, 1.0)
    first = climb.factor
    for _ in range(int(CLIMB_SHARE * STEPS)):
        climb.observe(SIZE, -alignment, 1.0)
    assert not climb.measures
    return climb.factor / first


def test_at_alignment_0_the_rate_rises_slowly_and_by_a_bounded_factor() -> None:
    assert climbed(0.0) == pytest.approx(LIFT, rel=0.01)
    assert climbed(-0.15) == pytest.approx(LIFT**0.5, rel=0.01)


@pytest.mark.parametrize("alignment", [-0.3, -0.5, -1.0])
def test_where_steps_are_far_too_long_the_rate_stays(alignment: float) -> None:
    assert climbed(alignment) == pytest.approx(1.0, rel=0.01)


def test_the_better_updates_align_the_faster_the_rate_rises() -> None:
    rises = [climbed(alignment) for alignment in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert rises == sorted(rises)
    assert rises[-1] > 100.0 * rises[0]
