"""A saved, copied or pickled controller continues its run; a hostile state is refused.

Runs have `STEPS` updates: the climb is the first 20, the cooldown the last 30.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from lr_gym.controllers import ControllerLR, load_state, save_state
from tests.helpers.loop import Loop, same

STEPS = 100
INTERVAL = 5  # updates between evaluations


def control(loop: Loop, total_steps: int = STEPS) -> ControllerLR:
    return ControllerLR(loop.optimizer, total_steps, undo=loop.model)


def run(loop: Loop, controller: ControllerLR, until: int, bad: int = -1) -> None:
    """Train until `until` updates are made; the evaluation at update `bad` is bad."""
    while controller.last_epoch < until:
        if controller.last_epoch % INTERVAL == 0:
            value = 1e6 if controller.last_epoch == bad else loop.evaluate()
            controller.step(value)
        loop.update()


def through_file(state: Any, path: Path) -> Any:
    save_state(state, path)
    return load_state(path)


def through_torch(state: Any, path: Path) -> Any:
    torch.save(state, path)
    return torch.load(path, weights_only=True)


def training_state(loop: Loop) -> dict[str, Any]:
    return {
        "model": loop.model.state_dict(),
        "optimizer": loop.optimizer.state_dict(),
        "generator": loop.generator.get_state(),
    }


def load_training(loop: Loop, state: dict[str, Any]) -> None:
    loop.model.load_state_dict(state["model"])
    loop.optimizer.load_state_dict(state["optimizer"])
    loop.generator.set_state(state["generator"])


def resume(
    path: Path,
    at: int,
    through: Callable[[Any, Path], Any] = through_file,
    *,
    total_steps: int = STEPS,
    controller_first: bool = False,
) -> tuple[Loop, ControllerLR]:
    """Train until update `at`; return a new loop that continues from there."""
    first = Loop()
    saved = control(first)
    run(first, saved, at)
    states = through([training_state(first), saved.state_dict()], path)
    second = Loop(seed=1, rate=0.5)  # another start, which the states replace
    if controller_first:
        controller = control(second, total_steps)
        controller.load_state_dict(states[1])
        load_training(second, states[0])
    else:
        load_training(second, states[0])
        controller = control(second, total_steps)
        controller.load_state_dict(states[1])
    return second, controller


@cache
def whole_run(bad: int = -1) -> tuple[Loop, ControllerLR]:
    loop = Loop()
    controller = control(loop)
    run(loop, controller, STEPS, bad)
    return loop, controller


@pytest.mark.parametrize("controller_first", [False, True])
@pytest.mark.parametrize("through", [through_file, through_torch])
@pytest.mark.parametrize(
    "bad", [-1, 65]
)  # of the resumed run: nothing to undo, an undo
def test_after_the_climb_a_resumed_run_is_the_same_to_the_last_bit(
    tmp_path: Path,
    through: Callable[[Any, Path], Any],
    bad: int,
    controller_first: bool,
) -> None:
    whole, whole_controller = whole_run(bad)
    resumed, controller = resume(
        tmp_path / "state", 63, through, controller_first=controller_first
    )
    run(resumed, controller, STEPS, bad)
    assert resumed.used == whole.used[63:]
    assert same(resumed.weights(), whole.weights())
    used = controller.used_learning_rates()
    assert used.tolist() == whole_controller.used_learning_rates().tolist()
    assert [r.undone for r in controller.history].count(True) == (bad > 0)


@pytest.mark.parametrize("at", [0, 1, 8, 14, 19])
def test_in_the_climb_too(tmp_path: Path, at: int) -> None:
    whole, _ = whole_run()
    resumed, controller = resume(tmp_path / "state", at)
    run(resumed, controller, STEPS)
    assert resumed.used == whole.used[at:]
    assert same(resumed.weights(), whole.weights())


def test_a_longer_run_goes_on_before_its_cooldown(tmp_path: Path) -> None:
    loop, controller = resume(tmp_path / "state", 60, total_steps=200)
    held = controller.get_last_lr()
    run(loop, controller, 200)
    assert all(rates == held for rates in loop.used[:81])  # until 70 % of 200
    assert loop.used[-1][0] == pytest.approx(float(held[0]) / 60.0)
    assert len(controller.used_learning_rates()) == 200


def test_a_longer_run_is_refused_in_the_cooldown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint of update 70 or earlier, or pass"):
        resume(tmp_path / "state", 80, total_steps=200)
    resume(tmp_path / "state", 70, total_steps=200)


def test_a_run_that_would_be_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass a larger total_steps"):
        resume(tmp_path / "state", 40, total_steps=39)
    resume(tmp_path / "state", 40, total_steps=40)


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - written here


@pytest.mark.parametrize("at", [3, 14, 42])
@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle])
def test_a_copy_controls_its_own_optimizer_alike(
    copied: Callable[[Any], Any], at: int
) -> None:
    loop = Loop()
    controller = control(loop)
    run(loop, controller, at)
    twin = Loop(seed=1)
    parts = copied((loop.model, loop.optimizer, controller))
    twin.model, twin.optimizer, twin_controller = parts
    twin.generator.set_state(loop.generator.get_state())
    before = controller.get_last_lr(), loop.weights()
    run(twin, twin_controller, STEPS, bad=50)  # 50: an undo
    assert (controller.last_epoch, controller.get_last_lr()) == (at, before[0])
    assert same(loop.weights(), before[1])
    run(loop, controller, STEPS, bad=50)
    assert twin.used == loop.used[at:]
    assert same(twin.weights(), loop.weights())
    assert [record.undone for record in twin_controller.history].count(True) == 1


def test_a_group_at_rate_0_is_saved_too() -> None:
    loop = Loop()
    loop.optimizer.param_groups[0]["lr"] = 0.0
    controller = control(loop)
    run(loop, controller, 10)
    state = controller.state_dict()
    again = Loop()
    again.optimizer.param_groups[0]["lr"] = 0.0
    resumed = control(again)
    resumed.load_state_dict(state)
    assert resumed.get_last_lr() == controller.get_last_lr()


def test_loading_a_state_without_a_snapshot_drops_the_snapshot() -> None:
    loop = Loop()
    controller = control(loop)
    fresh = controller.state_dict()
    run(loop, controller, 10)
    controller.load_state_dict(fresh)
    assert not controller.snapshot
    record = controller.step(math.nan)
    assert record is not None
    assert not record.undone


# --------------------------------------------------------------------- hostile states

NOT_NUMBERS = ("x", None, True, [1.0])
WRONG: dict[tuple[Any, ...], tuple[object, ...]] = {
    ("format",): ("lr-gym controller 1", None, 2),
    ("initial_lrs",): (
        *(None, "x", [], [1.0], [1.0, math.nan], [-1.0, 1.0], [0.0, 0.0]),
        *([1.0, True], [1.0, "x"], [1.0, math.inf]),
    ),
    ("climb",): (None, [], {}, "x"),
    ("climb", "total_steps"): (0, -1, 1.5, math.nan, *NOT_NUMBERS),
    ("climb", "step"): (-1, 14, 1.5, math.nan, *NOT_NUMBERS),
    ("climb", "factor"): (0.0, -1.0, math.nan, math.inf, *NOT_NUMBERS),
    ("climb", "starting"): (0, 1, None, "x"),
    ("climb", "later"): (math.nan, math.inf, -math.inf, *NOT_NUMBERS),
    ("climb", "own"): (-1.0, math.nan, math.inf, *NOT_NUMBERS),
    ("meter",): (None, [], {}, "x"),
    ("meter", "own"): (math.nan, math.inf, *NOT_NUMBERS),
    ("meter", "changes"): ("x", 1.0, [], [[], []], [[None] * 2] * 3, [None, None]),
    ("meter", "changes", 0): (None, [1.0, 1.0], [None]),
    ("meter", "changes", 0, 0): (
        *(1.0, [1.0] * 32, torch.ones(3), torch.ones(32).double()),
        torch.full((32,), math.nan),
    ),
    ("meter", "from_zero"): (None, "x", [[1]], [["a", 1]], [[-1, 0]]),
    ("damage",): (None, [], {}, "x"),
    ("damage", "count"): (-1, 0.5, *NOT_NUMBERS),
    ("damage", "first"): (math.nan, math.inf, "x", True, []),
    ("damage", "recent"): (None, "x", 1.0, [math.nan], ["x"], [True], [1.0] * 5),
    ("damage", "differences"): (None, "x", 1.0, [-1.0, 1.0], [math.nan, 1.0]),
    ("best",): (math.nan, "x", True, [1.0, 2.0]),
    ("factors",): (
        *(None, "x", [], [1.0] * 14, [-1.0] * 13, [math.nan] * 13),
        *(["x"] * 13, [True] * 13),
    ),
    ("snapshot",): ("x", [], [{}, {}], [None, None]),
}
CASES = [(path, value) for path, values in WRONG.items() for value in values]


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    """The state after 13 updates and 3 evaluations."""
    loop = Loop(seed=2)
    controller = control(loop)
    run(loop, controller, 13)
    return controller.state_dict()


@pytest.fixture(scope="module")
def running() -> tuple[Loop, ControllerLR]:
    """A run in its climb, which no test changes."""
    loop = Loop()
    controller = control(loop)
    run(loop, controller, 6)
    return loop, controller


def refuse(state: Any, running: tuple[Loop, ControllerLR]) -> None:
    """Check that a controller refuses `state`, and that nothing changes."""
    loop, controller = running
    before = copy.deepcopy((controller.state_dict(), loop.weights()))
    rates = controller.get_last_lr()
    with pytest.raises((TypeError, ValueError)):
        controller.load_state_dict(state)
    assert same([controller.state_dict(), loop.weights()], list(before))
    assert controller.get_last_lr() == rates


@pytest.mark.slow
@pytest.mark.parametrize(("path", "value"), CASES)
def test_a_wrong_entry_is_refused(
    running: tuple[Loop, ControllerLR],
    saved: dict[str, Any],
    path: tuple[Any, ...],
    value: object,
) -> None:
    state = copy.deepcopy(saved)
    owner: Any = state
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    refuse(state, running)


@pytest.mark.parametrize("owner", [None, "climb", "meter", "damage"])
def test_missing_and_unknown_entries_are_refused(
    running: tuple[Loop, ControllerLR], saved: dict[str, Any], owner: str | None
) -> None:
    names = list(saved if owner is None else saved[owner])
    for name in (*names, "unknown"):
        state = copy.deepcopy(saved)
        entries = state if owner is None else state[owner]
        if name == "unknown":
            entries[name] = 1.0
        else:
            del entries[name]
        refuse(state, running)


def test_the_snapshot_of_another_model_is_refused(
    running: tuple[Loop, ControllerLR], saved: dict[str, Any]
) -> None:
    state = copy.deepcopy(saved)
    state["snapshot"][0]["0.weight"] = torch.zeros(3, 3)
    refuse(state, running)
    state = copy.deepcopy(saved)
    state["snapshot"][1]["param_groups"].pop()
    refuse(state, running)


@pytest.mark.parametrize("state", [None, [], "x", 1.0])
def test_no_mapping_is_refused(running: tuple[Loop, ControllerLR], state: Any) -> None:
    refuse(state, running)
