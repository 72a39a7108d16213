"""`PolicyLR` undoes chunks, reacts to divergence, and is saved and resumed."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from lr_gym import MDPConfig
from lr_gym.controllers import Decision, PolicyLR, load_state, save_state
from tests.helpers.loop import Loop, always, same, settings


class Scripted:
    """A policy that returns the given decisions in order."""

    def __init__(self, *decisions: Decision) -> None:
        self.config = MDPConfig(allow_undo=True)
        self._decisions = list(decisions)

    def reset(self, decisions: int) -> None: ...

    def start(self) -> None:
        return None

    def act(self, observation: Any) -> Decision:
        return self._decisions.pop(0)

    def diverged(self) -> Decision:
        return Decision(0.1, undo=True)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


@pytest.mark.parametrize("device", ["same", "host"])
def test_an_undo_restores_everything_bit_for_bit(device: str) -> None:
    loop = Loop()
    average = torch.optim.swa_utils.AveragedModel(loop.model)
    keep, back = Decision(1.0), Decision(0.5, undo=True)
    controller = PolicyLR(
        loop.optimizer,
        Scripted(keep, keep, back, back, keep),
        undo=[loop.model, average],
        snapshot_device=device,
        **settings(),
    )
    objects = (loop.model, average, loop.optimizer)
    loop.run(controller, 5)
    record = controller.step(1.0)
    assert not record.undone
    saved = [deep_copy(stateful.state_dict()) for stateful in objects]
    for factor in (0.5, 0.25):  # undoing twice gives the same weights again
        for _ in range(5):
            loop.update()
            average.update_parameters(loop.model)
        moved = [stateful.state_dict() for stateful in objects]
        assert not any(map(same, saved, moved))
        record = controller.step(1.0)
        assert record.undone
        assert record.undo
        assert all(map(same, saved, [stateful.state_dict() for stateful in objects]))
        rates = [group["lr"] for group in loop.optimizer.param_groups]
        assert rates == pytest.approx([1e-2 * factor, 3e-2 * factor])
    loop.run(controller, 16)  # training goes on
    snapshot = controller.snapshot
    assert snapshot is not None
    assert snapshot.bytes > 2 * sum(p.nbytes for p in loop.model.parameters())
    assert snapshot.seconds > 0.0


def deep_copy(state: Any) -> Any:
    """Return a deep copy."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: deep_copy(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(deep_copy(value) for value in state)
    return state


def test_an_undo_at_the_first_decision_gives_back_the_untrained_model() -> None:
    loop = Loop()
    untrained = loop.weights()
    policy = Scripted(Decision(1.0), Decision(0.5, undo=True))
    controller = PolicyLR(loop.optimizer, policy, undo=loop.model, **settings())
    loop.run(controller, 5)
    assert controller.step(1.0).undone
    assert same(loop.weights(), untrained)
    assert not loop.optimizer.state, "the optimizer's state is empty too"


def test_a_policy_that_undoes_needs_something_to_undo() -> None:
    loop = Loop()
    with pytest.raises(ValueError, match=r"pass undo=model.*'default_without_undo'"):
        PolicyLR(loop.optimizer, **settings())
    with pytest.raises(TypeError, match=r"undo must be objects .* got int"):
        PolicyLR(loop.optimizer, undo=3, **settings())  # type: ignore[arg-type]  # the point
    controller = PolicyLR(loop.optimizer, "default_without_undo", **settings())
    loop.run(controller, 60)
    assert not any(record.undone for record in controller.history)


# -------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e9])
@pytest.mark.parametrize("undo", [True, False])
def test_divergence_lowers_the_learning_rate_without_an_error(
    loss: float, undo: bool
) -> None:
    loop = Loop()
    controller = PolicyLR(
        loop.optimizer, always(1), undo=loop.model if undo else (), **settings()
    )
    loop.run(controller, 5)
    controller.step(1.0)
    saved = loop.weights()
    loop.update()
    with torch.no_grad():
        next(loop.model.parameters()).fill_(math.nan)
    record = controller.step(loss)
    assert record.diverged
    assert record.undone is undo
    assert record.learning_rate == pytest.approx(1e-2 / 3)
    assert same(loop.weights(), saved) is undo
    if undo:
        loop.run(controller, 12)
        assert math.isfinite(loop.evaluate())


def test_a_run_whose_first_loss_is_no_number_goes_on() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    assert controller.step(math.nan).diverged
    loop.run(controller, 20)
    assert not controller.history[-1].diverged


def test_a_diverged_last_chunk_is_undone_at_the_end() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    loop.run(controller, 60)
    assert controller.step(math.nan).undone


# ------------------------------------------------------------------- save, kill, resume


@pytest.mark.parametrize("cut", [1, 15, 17, 33])
def test_a_resumed_run_uses_the_same_rates_bit_for_bit(
    tmp_path: Path, cut: int
) -> None:
    """The learning rate is so high that there are undos before and after the cut."""
    whole = Loop(rate=30.0)
    controller = PolicyLR(whole.optimizer, undo=whole.model, max_lr=1e3, **settings())
    whole.run(controller, 60)
    undone = [record.iteration for record in controller.history if record.undone]
    assert undone, "the test covers undo as well"

    first = Loop(rate=30.0)
    half = PolicyLR(first.optimizer, undo=first.model, max_lr=1e3, **settings())
    first.run(half, cut)
    save_state(
        {
            "model": first.model.state_dict(),
            "optimizer": first.optimizer.state_dict(),
            "controller": half.state_dict(),
            "generator": first.generator.get_state(),
        },
        tmp_path / "checkpoint.safetensors",
    )

    second = Loop(seed=5, rate=30.0)
    rest = PolicyLR(second.optimizer, undo=second.model, max_lr=1e3, **settings())
    state = load_state(tmp_path / "checkpoint.safetensors")
    second.model.load_state_dict(state["model"])
    second.optimizer.load_state_dict(state["optimizer"])
    second.generator.set_state(state["generator"])
    rest.load_state_dict(state["controller"])
    second.run(rest, 60)
    assert first.used + second.used == whole.used
    assert rest.history == controller.history
    assert same(second.weights(), whole.weights())


def altered(state: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a state with another value at a path of keys."""
    changed = copy.deepcopy(state)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("iteration",), 1e38, "iteration must be an integer, got 1e"),
        (("iteration",), 2**31, "iteration must be at most"),
        (("learning_rate",), "{}", "learning_rate must be a number"),
        (("initial_lrs",), 7, "initial_lrs must be a list, got 7"),
        (("initial_lrs", 0), 0.0, "initial_lrs must be finite and in"),
        (("policy", "started"), 1, "started must be True or False"),
        (("policy", "n_loss_rises"), None, "n_loss_rises must be an integer"),
        (("policy",), {}, "policy lacks started, reference_loss"),
        (("run", "val_loss"), [], "val_loss must be a list of one number"),
        (("run", "iteration"), [math.inf], "iteration must be an integer, got inf"),
        (("history",), 3, "history must be a list, got 3"),
        (("history", 0), {}, "a record of history lacks iteration"),
        (("history", 0, "factor"), -1.0, "factor of history must not be negative"),
        (("snapshot",), [], "snapshot must be a list with the states of 2 objects"),
        (("snapshot", 0), {}, "the snapshot of Sequential lacks"),
        (("snapshot", 1), {}, "the snapshot of AdamW: state must be a mapping"),
        (("snapshot", 1, "param_groups"), [], "AdamW must have 2 parameter groups"),
        (("snapshot", 1, "param_groups", 0), {}, "other parameters than the optimizer"),
        (("future",), 1, "state_dict has an unknown key 'future'"),
    ],
)
def test_an_altered_state_is_refused_and_nothing_is_loaded(
    path: tuple[Any, ...], value: Any, message: str
) -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    loop.run(controller, 5)
    fresh = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    before = fresh.policy.state_dict()
    with pytest.raises((TypeError, ValueError), match=message):
        fresh.load_state_dict(altered(controller.state_dict(), path, value))
    assert (fresh.iteration, fresh.history) == (0, [])
    assert fresh.policy.state_dict() == before


def test_a_loaded_learning_rate_is_within_the_bounds() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    state = controller.state_dict() | {"learning_rate": 1e30}
    controller.load_state_dict(state)
    assert controller.get_last_lr()[0] <= controller.config.max_lr


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    with pytest.raises(ValueError, match="not a controller's state"):
        controller.load_state_dict({"last_epoch": 3})
    single = torch.optim.SGD(loop.model.parameters(), lr=0.1)
    other = PolicyLR(single, undo=loop.model, **settings())
    with pytest.raises(ValueError, match="2 parameter groups, the optimizer has 1"):
        other.load_state_dict(controller.state_dict())
    tree = '{"list": [' * 2_000 + "]}" * 2_000
    path = tmp_path / "deep"
    path.write_bytes(safetensors.torch.save({}, {"tree": tree}))
    with pytest.raises(ValueError, match="is not a saved state: RecursionError"):
        load_state(path)
    (tmp_path / "x").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="is not a saved state"):
        load_state(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_state(tmp_path / "y")
    with pytest.raises(TypeError, match="tensors and plain values, got <object"):
        save_state({"a": object()}, tmp_path / "z")
