"""The controller: damaged states, metrics of any type, keywords of any value."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from lr_gym.controllers import PolicyLR, RampAndUndo, UpdateSizeRule
from lr_gym.controllers.snapshots import load_state, save_state
from tests.helpers.fuzzing import (
    ANYTHING,
    NUMBERS,
    POSITIVE,
    TENSORS,
    changed_json,
    damaged_bytes,
    fuzz,
    mostly,
    refused,
    written,
)

POLICIES = ("default", "ramp_and_undo", "default_without_undo")


def make_controller(
    policy: str = "default", **settings: Any
) -> tuple[PolicyLR, torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    defaults: dict[str, Any] = {"interval": 2, "max_iters": 20, "undo": model}
    return PolicyLR(optimizer, policy, **(defaults | settings)), model, optimizer


def train(
    controller: PolicyLR,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    updates: int,
) -> None:
    for _ in range(updates):
        loss = model(torch.ones(3, 2)).square().mean()
        if controller.needs_evaluation:
            controller.step(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert 0.0 <= controller.get_last_lr()[0] < 1e30


@lru_cache
def valid_state(policy: str) -> dict[str, Any]:
    controller, model, optimizer = make_controller(policy)
    train(controller, model, optimizer, 7)
    return controller.state_dict()


@lru_cache
def fresh_memory(policy: str) -> dict[str, Any]:
    return make_controller(policy)[0].policy.state_dict()


@st.composite
def states(draw: st.DrawFn) -> tuple[str, Any]:
    policy = draw(st.sampled_from(POLICIES))
    return policy, draw(changed_json(valid_state(policy)))


@fuzz(15)
@given(drawn=states())
def test_a_damaged_state_is_refused_or_continues(drawn: tuple[str, Any]) -> None:
    policy, state = drawn
    controller, model, optimizer = make_controller(policy)
    if refused(lambda: controller.load_state_dict(state)):
        assert controller.iteration == 0  # nothing was loaded
        assert controller.history == []
        assert controller.policy.state_dict() == fresh_memory(policy)
    train(controller, model, optimizer, 6)
    controller.step(0.5)
    controller.step(float("nan"))
    controller.used_learning_rates()


@lru_cache
def valid_file() -> bytes:
    path = written("valid_state", b"")
    save_state(valid_state("default"), path)
    return path.read_bytes()


@st.composite
def state_files(draw: st.DrawFn) -> bytes:
    valid = valid_file()
    damage = draw(st.sampled_from(["state", "bytes", "header"]))
    if damage == "state":
        _, state = draw(states())
        path = written("damaged_state", b"")
        save_state(state, path)
        return path.read_bytes()
    if damage == "bytes":
        return draw(damaged_bytes(valid))
    # The header matters most.
    end = 8 + int.from_bytes(valid[:8], "little")
    header = draw(damaged_bytes(valid[8:end]))
    return len(header).to_bytes(8, "little") + header + valid[end:]


@fuzz(40)
@given(content=state_files())
def test_a_damaged_file_is_refused_or_loaded(content: bytes) -> None:
    path = written("state", content)
    controller, _, _ = make_controller()
    refused(lambda: controller.load_state_dict(load_state(path)))


METRICS = ANYTHING | NUMBERS | TENSORS | st.floats(0.0, 10.0)


@fuzz(60)
@given(
    policy=st.sampled_from(POLICIES),
    first=METRICS,
    metrics=st.fixed_dictionaries(
        {"val_loss": METRICS},
        optional={k: METRICS for k in ("train_loss", "grad_norm", "update_size")},
    ),
)
def test_metrics(policy: str, first: Any, metrics: dict[str, Any]) -> None:
    controller, model, optimizer = make_controller(policy)
    if refused(lambda: controller.step(first)):
        controller.step(1.0)
    train(controller, model, optimizer, 2)
    refused(lambda: controller.step(**metrics))
    train(controller, model, optimizer, 3)
    controller.state_dict()


KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "policy": st.sampled_from(POLICIES),
    "interval": st.integers(1, 30),
    "max_iters": st.integers(1, 30),
    "min_lr": POSITIVE,
    "max_lr": POSITIVE,
    "undo": st.just(()),
    "warmup_iters": st.integers(0, 30),
    "snapshot_device": st.sampled_from(["same", "host"]),
    "loss_floor": st.floats(0.0, 9.0),
    "dry_run": st.booleans(),
}


@fuzz(30)
@given(
    changes=st.fixed_dictionaries(
        {}, optional={k: mostly(v, METRICS) for k, v in KEYWORDS.items()}
    )
)
def test_keywords(changes: dict[str, Any]) -> None:
    def run() -> None:
        train(*make_controller(**changes), 6)

    refused(run)


@st.composite
def parameters(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """Draw a rule and some of its parameters, most often of the right type."""
    rule = draw(st.sampled_from([UpdateSizeRule, RampAndUndo]))
    changes = {}
    for name, default in rule().parameters.items():
        if draw(st.booleans()):
            numbers = POSITIVE | st.floats(0.0, 1.0) | st.floats(1.0, 1e3)
            usual = st.booleans() if isinstance(default, bool) else numbers
            changes[name] = draw(mostly(usual, METRICS))
    return rule, changes


@fuzz(30)
@given(drawn=parameters())
def test_parameters_of_rules(drawn: tuple[Any, dict[str, Any]]) -> None:
    rule, changes = drawn

    def run() -> None:
        train(*make_controller(rule(**changes)), 8)

    refused(run)
