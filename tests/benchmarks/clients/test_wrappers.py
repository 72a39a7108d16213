"""Gymnasium's wrappers run on the environments, those that need no other package."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.clients.wrappers import (
    ENV_ID,
    IMAGES,
    SINGLE,
    VECTOR,
    Wrapped,
    missing_wrappers,
    run_single,
    run_vector,
)

INSTALLED = (None, "pygame")  # needs of wrappers that the extra ``dev`` covers


def wrappers_to_run(table: dict[str, Wrapped | str]) -> list[Any]:
    """Return the wrappers that apply; those that draw pictures are slow."""
    return [
        pytest.param(
            name,
            wrapped,
            marks=pytest.mark.slow if wrapped.settings is IMAGES else (),
            id=name,
        )
        for name, wrapped in table.items()
        if isinstance(wrapped, Wrapped) and wrapped.needs in INSTALLED
    ]


def test_every_wrapper_of_gymnasium_is_listed() -> None:
    assert missing_wrappers() == []


# Gymnasium's own, when it checks float32 bounds against another type.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize(("name", "wrapped"), wrappers_to_run(SINGLE))
def test_a_wrapper_of_a_single_environment(
    name: str, wrapped: Wrapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # a window that nobody sees
    run_single(name, wrapped)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize(("name", "wrapped"), wrappers_to_run(VECTOR))
def test_a_wrapper_of_a_population(name: str, wrapped: Wrapped) -> None:
    run_vector(name, wrapped)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # of fork
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_vector_environments_are_like_the_population(
    mode: Literal["sync", "async"],
) -> None:
    envs = gym.make_vec(ENV_ID, 2, vectorization_mode=mode)
    population = gym.make_vec(ENV_ID, 2)
    np.testing.assert_allclose(envs.reset(seed=3)[0], population.reset(seed=3)[0])
    for step in range(22):  # an episode has 20
        actions = np.array([step % 3, 1])
        for both in zip(
            envs.step(actions)[:4], population.step(actions)[:4], strict=True
        ):
            np.testing.assert_allclose(*both, rtol=1e-5)
    envs.close()
    population.close()
