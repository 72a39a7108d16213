"""`ControllerLR` in plain PyTorch loops: its interface, and that it alone steers."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lr_gym import MDPConfig
from lr_gym.controllers import (
    ActionPolicy,
    ControllerLR,
    Decision,
    Record,
    load_state,
    save_state,
)


class Always:
    """An action at every decision; remembers what it saw."""

    def __init__(self, action: int) -> None:
        self.choice = action
        self.seen: list[list[float]] = []

    def action(self, observation: Any, decisions: int) -> int:
        self.seen.append(observation.tolist())
        return self.choice


def always(action: int, **settings: Any) -> ActionPolicy:
    return ActionPolicy(MDPConfig(**settings), Always(action))


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)  # the layers draw from the global generator
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def two_groups(model: nn.Module, rate: float = 1e-2) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    groups = [
        {"params": parameters[:2], "lr": rate},
        {"params": parameters[2:], "lr": 3 * rate},
    ]
    return torch.optim.AdamW(groups)


class Loop:
    """Somebody's training loop on a small regression, with its own data stream."""

    def __init__(self, seed: int = 0, rate: float = 1e-2) -> None:
        self.model = small_model(seed)
        self.optimizer = two_groups(self.model, rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.used: list[list[float]] = []  # as the optimizer saw them

    def loss(self, generator: torch.Generator, size: int) -> Tensor:
        x = torch.randn(size, 4, generator=generator)
        error: Tensor = self.model(x) - x[:, :1] * x[:, 1:2]
        return error.square().mean()

    def evaluate(self) -> float:
        self.model.eval()
        with torch.no_grad():
            value = self.loss(torch.Generator().manual_seed(99), 256)
        self.model.train()
        return float(value)

    def update(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.generator, 32).backward()  # type: ignore[no-untyped-call]  # torch's own
        self.used.append([group["lr"] for group in self.optimizer.param_groups])
        self.optimizer.step()

    def run(self, controller: ControllerLR, until: int) -> None:
        while controller.iteration < until:
            if controller.due:
                controller.step(self.evaluate())
            self.update()

    def weights(self) -> list[Tensor]:
        return [value.clone() for value in self.model.state_dict().values()]


def settings(**overrides: Any) -> dict[str, Any]:
    return {"interval": 5, "max_iters": 60} | overrides


# ------------------------------------------------------------------- the learning rate


def test_the_rate_used_is_the_rate_decided_in_every_group() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    loop.run(controller, 60)
    first = [rates[0] for rates in loop.used]
    assert first == controller.used_learning_rates().tolist()
    decided = {record.iteration: record.learning_rate for record in controller.history}
    assert sorted(decided) == list(range(0, 60, 5))
    assert [first[i] for i in decided] == list(decided.values())
    assert len(set(first)) > 5, "the rule moved it"
    for one, three in loop.used:
        assert three == pytest.approx(3 * one, rel=1e-12)


def test_the_weights_move_by_that_rate() -> None:
    """Read off plain SGD: a step is -rate * gradient."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    controller = ControllerLR(
        optimizer, always(0, lr_factors=(0.5, 1.0)), interval=1, max_iters=8
    )
    for i in range(8):
        controller.step(1.0)
        before = model.weight.item()
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        assert before - model.weight.item() == pytest.approx(0.1 * 0.5 ** (i + 1), 1e-3)


def test_warm_up_and_base_schedule_act_on_top_per_update() -> None:
    loop = Loop(rate=0.1)
    policy = always(1, base_schedule="linear")
    controller = ControllerLR(
        loop.optimizer, policy, warmup_iters=4, **settings(max_iters=20)
    )
    loop.run(controller, 20)
    expected = [0.1 * (i + 1) / 5 for i in range(4)]
    expected += [0.1 * (1 - i / 16) for i in range(16)]
    assert [rates[0] for rates in loop.used] == pytest.approx(expected)


def test_bounds_hold_and_are_of_the_first_group() -> None:
    for action, bound in ((0, 0.004), (2, 0.05)):
        loop = Loop()
        controller = ControllerLR(
            loop.optimizer, always(action), min_lr=0.004, max_lr=0.05, **settings()
        )
        loop.run(controller, 30)
        assert controller.get_last_lr() == pytest.approx([bound, 3 * bound])


def test_a_learning_rate_that_is_a_tensor_is_filled_in_place() -> None:
    model = nn.Linear(1, 1)
    rate = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    controller = ControllerLR(optimizer, always(0), interval=1, max_iters=4)
    for _ in range(3):
        controller.step(1.0)
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1 / 8)


def test_it_asks_for_evaluations_at_the_policys_spacing() -> None:
    loop = Loop()
    policy = always(
        1, decision_spacing="dense_start", dense_interval=4, dense_fraction=0.2
    )
    controller = ControllerLR(loop.optimizer, policy, **settings(interval=20))
    loop.run(controller, 60)
    assert [record.iteration for record in controller.history] == [0, 4, 8, 12, 32, 52]
    assert not controller.due, "nothing is left to decide"


def test_an_evaluation_that_was_not_asked_for_is_a_decision_too() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, always(0), **settings())
    controller.step(1.0)
    for _ in range(3):
        loop.update()
    assert controller.step(1.0).learning_rate == pytest.approx(1e-2 / 4)
    assert controller.step(1.0).factor == 1.0, "no update was made since"
    assert not controller.due


def test_after_the_last_update_nothing_is_decided() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, always(0), **settings())
    loop.run(controller, 60)
    before = controller.get_last_lr()
    assert controller.step(loop.evaluate()).factor == 1.0
    assert controller.get_last_lr() == before


# ------------------------------------------------------------------------- other hands


def interfere_by_scheduler(loop: Loop) -> Callable[[], object]:
    return torch.optim.lr_scheduler.CosineAnnealingLR(loop.optimizer, 60).step


def interfere_by_hand(loop: Loop) -> Callable[[], object]:
    def write() -> None:
        loop.optimizer.param_groups[1]["lr"] = 1e-3

    return write


@pytest.mark.parametrize("make", [interfere_by_scheduler, interfere_by_hand])
def test_another_hand_on_the_rate_is_noticed_at_the_next_update(
    make: Callable[[Loop], Callable[[], object]],
) -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    write = make(loop)
    controller.step(loop.evaluate())
    loop.update()
    write()
    with pytest.raises(RuntimeError, match="something else changed the learning rate"):
        loop.update()
    with pytest.raises(RuntimeError, match="remove the other scheduler"):
        controller.step(1.0)


def test_a_rate_changed_just_before_the_update_is_noticed_after_it() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    controller.step(loop.evaluate())

    def sneak(*_: object) -> None:
        loop.optimizer.param_groups[0]["lr"] = 1.0

    loop.optimizer.register_step_pre_hook(sneak)
    with pytest.raises(RuntimeError, match=r"of parameter group 0 from .* to 1 at"):
        loop.update()


def test_a_second_controller_and_a_new_group_are_noticed() -> None:
    loop = Loop()
    first = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    second = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    second.step(1.0)
    with pytest.raises(RuntimeError, match="something else changed"):
        loop.update()
    first.detach()
    loop.update()
    loop.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(RuntimeError, match="had 2 parameter groups and now has 3"):
        loop.update()
    second.detach()
    loop.update()


# -------------------------------------------------------------------------------- undo


class Scripted:
    """A policy that does as told, one decision after the other."""

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


def same(one: Any, two: Any) -> bool:
    """Whether nested states are equal, bit for bit, but for learning rates."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        rest = [key for key in one if key != "lr"]
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in rest)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


@pytest.mark.parametrize("device", ["same", "host"])
def test_an_undo_restores_everything_bit_for_bit(device: str) -> None:
    loop = Loop()
    average = torch.optim.swa_utils.AveragedModel(loop.model)
    keep, back = Decision(1.0), Decision(0.5, undo=True)
    controller = ControllerLR(
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
    held = [save_load(thing.state_dict()) for thing in objects]
    for factor in (0.5, 0.25):  # undoing twice gives the same weights again
        for _ in range(5):
            loop.update()
            average.update_parameters(loop.model)
        moved = [thing.state_dict() for thing in objects]
        assert not any(map(same, held, moved))
        record = controller.step(1.0)
        assert record.undone
        assert record.undo
        assert all(map(same, held, [thing.state_dict() for thing in objects]))
        rates = [group["lr"] for group in loop.optimizer.param_groups]
        assert rates == pytest.approx([1e-2 * factor, 3e-2 * factor])
    loop.run(controller, 16)  # training goes on
    snapshot = controller.snapshot
    assert snapshot is not None
    assert snapshot.bytes > 2 * sum(p.nbytes for p in loop.model.parameters())
    assert snapshot.seconds > 0.0


def save_load(state: Any) -> Any:
    """A copy that shares nothing with what it was made of."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: save_load(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(save_load(value) for value in state)
    return state


def test_an_undo_at_the_first_decision_gives_back_the_untrained_model() -> None:
    loop = Loop()
    untrained = loop.weights()
    policy = Scripted(Decision(1.0), Decision(0.5, undo=True))
    controller = ControllerLR(loop.optimizer, policy, undo=loop.model, **settings())
    loop.run(controller, 5)
    assert controller.step(1.0).undone
    assert same(loop.weights(), untrained)
    assert not loop.optimizer.state, "nor has the optimizer any memory"


def test_a_policy_that_undoes_needs_something_to_undo() -> None:
    loop = Loop()
    with pytest.raises(ValueError, match=r"pass undo=model.*'default_without_undo'"):
        ControllerLR(loop.optimizer, **settings())
    with pytest.raises(TypeError, match=r"undo must be objects .* got int"):
        ControllerLR(loop.optimizer, undo=3, **settings())  # type: ignore[arg-type]  # the point
    controller = ControllerLR(loop.optimizer, "default_without_undo", **settings())
    loop.run(controller, 60)
    assert not any(record.undone for record in controller.history)


# -------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e9])
@pytest.mark.parametrize("undo", [True, False])
def test_divergence_is_answered_and_no_crash(loss: float, undo: bool) -> None:
    loop = Loop()
    controller = ControllerLR(
        loop.optimizer, always(1), undo=loop.model if undo else (), **settings()
    )
    loop.run(controller, 5)
    controller.step(1.0)
    held = loop.weights()
    loop.update()
    with torch.no_grad():
        next(loop.model.parameters()).fill_(math.nan)
    record = controller.step(loss)
    assert record.diverged
    assert record.undone is undo
    assert record.learning_rate == pytest.approx(1e-2 / 3)
    assert same(loop.weights(), held) is undo
    if undo:
        loop.run(controller, 12)
        assert math.isfinite(loop.evaluate())


def test_a_run_whose_first_loss_is_no_number_goes_on() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    assert controller.step(math.nan).diverged
    loop.run(controller, 20)
    assert not controller.history[-1].diverged


def test_a_bad_last_chunk_is_taken_back_at_the_end() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    loop.run(controller, 60)
    assert controller.step(math.nan).undone


# ------------------------------------------------------------------- what a policy sees


def test_the_policy_sees_what_it_would_see_in_the_environment() -> None:
    loop = Loop()
    policy = always(
        0,
        features=(
            "val_loss",
            "log_learning_rate",
            "progress",
            "loss_slope",
            "grad_norm",
        ),
    )
    controller = ControllerLR(loop.optimizer, policy, **settings(max_iters=20))
    controller.step(torch.tensor(4.0))
    for _ in range(5):
        loop.update()
    controller.step(2.0, grad_norm=torch.tensor(10.0))
    head: Any = controller.policy
    first, second = head.head.seen
    assert first == pytest.approx([4.0, -2.0, 0.0, 0.0, -8.0])
    assert second == pytest.approx(
        [2.0, math.log10(5e-3), 0.25, math.log(2.0), 1.0], rel=1e-6
    )
    for _ in range(5):
        loop.update()
    with pytest.raises(ValueError, match="observes 'grad_norm': pass grad_norm= to"):
        controller.step(2.0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [(-1.0, "val_loss must not be negative"), (1e6, "val_loss must be at most 1000")],
)
def test_a_loss_that_no_policy_can_see_is_refused(loss: float, message: str) -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    with pytest.raises(ValueError, match=message):
        controller.step(loss)


def test_a_loop_that_never_evaluates_first_starts_as_the_rule_says() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    loop.update()
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 300)
    assert controller.history == [Record(0, None, 1e-2 / 300, 1 / 300)]
    loop.run(controller, 6)
    assert controller.history[-1].factor == 2.0


def test_a_learned_policy_without_a_first_evaluation_warns_and_keeps() -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, always(0), **settings())
    with pytest.warns(UserWarning, match="training starts before the first evaluation"):
        loop.update()
    assert controller.get_last_lr()[0] == 1e-2
    loop.run(controller, 6)
    assert controller.get_last_lr()[0] == pytest.approx(5e-3)


def test_a_dry_run_logs_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    plain, watched = Loop(), Loop()
    with caplog.at_level(logging.INFO, "lr_gym.controllers"):
        controller = ControllerLR(watched.optimizer, dry_run=True, **settings())
        for loop in (plain, watched):  # with a scheduler of their own
            scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, 7)
            for _ in range(20):
                if loop is watched and controller.due:
                    controller.step(loop.evaluate())
                loop.update()
                scheduler.step()
    assert plain.used == watched.used
    assert same(plain.weights(), watched.weights())
    assert len(controller.history) == 4
    assert caplog.text.count("dry run: Record(") == 4
    # What it would set is relative to what the loop's own scheduler has set.
    assert controller.history[2].learning_rate == pytest.approx(1e-3 * 2.0)


# ---------------------------------------------------------------------------- exporting


def test_the_schedule_as_csv_and_as_a_replay(tmp_path: Path) -> None:
    loop = Loop()
    controller = ControllerLR(
        loop.optimizer, undo=loop.model, warmup_iters=3, **settings()
    )
    with pytest.raises(RuntimeError, match="nothing to replay"):
        controller.as_lambda_lr(Loop().optimizer)
    loop.run(controller, 60)
    controller.export_schedule(tmp_path / "schedule.csv")
    with (tmp_path / "schedule.csv").open() as file:
        rows = list(csv.DictReader(file))
    used = [rates[0] for rates in loop.used]
    assert [float(row["learning_rate"]) for row in rows] == used
    assert [int(row["iteration"]) for row in rows] == list(range(60))
    noted = [row for row in rows if row["val_loss"]]
    assert [float(row["val_loss"]) for row in noted] == [
        record.val_loss for record in controller.history
    ]
    assert [row["undone"] for row in noted] == [
        str(int(record.undone)) for record in controller.history
    ]

    fresh = Loop()
    scheduler = controller.as_lambda_lr(fresh.optimizer)
    for _ in range(60):
        fresh.update()
        scheduler.step()
    np.testing.assert_allclose(fresh.used, loop.used, rtol=1e-12)


# ------------------------------------------------------------------- save, kill, resume


@pytest.mark.parametrize("cut", [1, 15, 17, 33])
def test_a_resumed_run_uses_the_same_rates_bit_for_bit(
    tmp_path: Path, cut: int
) -> None:
    """With a rate so high that chunks are taken back before and after the cut."""
    whole = Loop(rate=30.0)
    controller = ControllerLR(
        whole.optimizer, undo=whole.model, max_lr=1e3, **settings()
    )
    whole.run(controller, 60)
    undone = [record.iteration for record in controller.history if record.undone]
    assert undone, "the test is of undo as well"

    first = Loop(rate=30.0)
    half = ControllerLR(first.optimizer, undo=first.model, max_lr=1e3, **settings())
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
    rest = ControllerLR(second.optimizer, undo=second.model, max_lr=1e3, **settings())
    state = load_state(tmp_path / "checkpoint.safetensors")
    second.model.load_state_dict(state["model"])
    second.optimizer.load_state_dict(state["optimizer"])
    second.generator.set_state(state["generator"])
    rest.load_state_dict(state["controller"])
    second.run(rest, 60)
    assert first.used + second.used == whole.used
    assert rest.history == controller.history
    assert same(second.weights(), whole.weights())


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    loop = Loop()
    controller = ControllerLR(loop.optimizer, undo=loop.model, **settings())
    with pytest.raises(ValueError, match="not a controller's state"):
        controller.load_state_dict({"last_epoch": 3})
    single = torch.optim.SGD(loop.model.parameters(), lr=0.1)
    other = ControllerLR(single, undo=loop.model, **settings())
    with pytest.raises(ValueError, match="2 parameter groups, the optimizer has 1"):
        other.load_state_dict(controller.state_dict())
    (tmp_path / "x").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="is not a saved state"):
        load_state(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_state(tmp_path / "y")
    with pytest.raises(TypeError, match="tensors and plain values, got <object"):
        save_state({"a": object()}, tmp_path / "z")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"interval": 0}, ValueError, "interval must be at least 1"),
        ({"max_iters": 1.5}, TypeError, "max_iters must be an integer"),
        ({"warmup_iters": 61}, ValueError, r"warmup_iters must be in \[0, 60\]"),
        ({"max_lr": 1e-3}, ValueError, "first group's learning rate must be in"),
        ({"min_lr": 1.0, "max_lr": 0.5}, ValueError, "min_lr must not exceed max_lr"),
        ({"dry_run": 1}, TypeError, "dry_run must be True or False"),
        ({"snapshot_device": "disk"}, ValueError, "snapshot_device must be one of"),
        ({"policy": "no_such_policy"}, ValueError, "policy must be one of default"),
        ({"policy": 3}, TypeError, "policy must be a policy"),
    ],
)
def test_a_wrong_argument_is_named(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    loop = Loop()
    with pytest.raises(error, match=message):
        ControllerLR(loop.optimizer, **({"undo": loop.model} | settings(**wrong)))
    with pytest.raises(TypeError, match="Linear is not an Optimizer"):
        ControllerLR(nn.Linear(1, 1), **settings())  # type: ignore[arg-type]  # the point
