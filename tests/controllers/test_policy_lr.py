"""`PolicyLR` in a plain PyTorch loop: interface, learning rates, errors."""

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
from torch import nn

from lr_gym.controllers import PolicyLR, Record
from tests.helpers.loop import Loop, always, same, settings

# ------------------------------------------------------------------- the learning rate


def test_the_rate_used_is_the_rate_decided_in_every_group() -> None:
    loop = Loop()
    controller = PolicyLR(
        loop.optimizer, "ramp_and_undo", undo=loop.model, **settings()
    )
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
    """With plain SGD, an update is -learning rate * gradient."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    controller = PolicyLR(
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
    controller = PolicyLR(
        loop.optimizer, policy, warmup_iters=4, **settings(max_iters=20)
    )
    loop.run(controller, 20)
    expected = [0.1 * (i + 1) / 5 for i in range(4)]
    expected += [0.1 * (1 - i / 16) for i in range(16)]
    assert [rates[0] for rates in loop.used] == pytest.approx(expected)


def test_the_bounds_apply_to_the_first_group() -> None:
    for action, bound in ((0, 0.004), (2, 0.05)):
        loop = Loop()
        controller = PolicyLR(
            loop.optimizer, always(action), min_lr=0.004, max_lr=0.05, **settings()
        )
        loop.run(controller, 30)
        assert controller.get_last_lr() == pytest.approx([bound, 3 * bound])


def test_a_learning_rate_that_is_a_tensor_is_filled_in_place() -> None:
    model = nn.Linear(1, 1)
    rate = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    controller = PolicyLR(optimizer, always(0), interval=1, max_iters=4)
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
    controller = PolicyLR(loop.optimizer, policy, **settings(interval=20))
    loop.run(controller, 60)
    assert [record.iteration for record in controller.history] == [0, 4, 8, 12, 32, 52]
    assert not controller.needs_evaluation, "nothing is left to decide"


def test_an_evaluation_that_was_not_asked_for_is_a_decision_too() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, always(0), **settings())
    controller.step(1.0)
    for _ in range(3):
        loop.update()
    assert controller.step(1.0).learning_rate == pytest.approx(1e-2 / 4)
    assert controller.step(1.0).factor == 1.0, "no update was made since"
    assert not controller.needs_evaluation


def test_after_the_last_update_nothing_is_decided() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, always(0), **settings())
    loop.run(controller, 60)
    before = controller.get_last_lr()
    assert controller.step(loop.evaluate()).factor == 1.0
    assert controller.get_last_lr() == before


# -------------------------------------------------- something else sets the learning ra


def interfere_by_scheduler(loop: Loop) -> Callable[[], object]:
    return torch.optim.lr_scheduler.CosineAnnealingLR(loop.optimizer, 60).step


def interfere_directly(loop: Loop) -> Callable[[], object]:
    def write() -> None:
        loop.optimizer.param_groups[1]["lr"] = 1e-3

    return write


@pytest.mark.parametrize("make", [interfere_by_scheduler, interfere_directly])
def test_a_foreign_change_of_the_learning_rate_raises_at_the_next_update(
    make: Callable[[Loop], Callable[[], object]],
) -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    write = make(loop)
    controller.step(loop.evaluate())
    loop.update()
    write()
    with pytest.raises(RuntimeError, match="something else changed the learning rate"):
        loop.update()
    with pytest.raises(RuntimeError, match="remove the other scheduler"):
        controller.step(1.0)


def test_a_change_just_before_the_update_raises_after_it() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    controller.step(loop.evaluate())

    def change(*_: object) -> None:
        loop.optimizer.param_groups[0]["lr"] = 1.0

    loop.optimizer.register_step_pre_hook(change)
    with pytest.raises(RuntimeError, match=r"of parameter group 0 from .* to 1 at"):
        loop.update()


def test_a_second_controller_and_a_new_group_raise() -> None:
    loop = Loop()
    first = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    second = PolicyLR(loop.optimizer, undo=loop.model, **settings())
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
    controller = PolicyLR(loop.optimizer, policy, **settings(max_iters=20))
    controller.step(torch.tensor(4.0))
    for _ in range(5):
        loop.update()
    controller.step(2.0, grad_norm=torch.tensor(10.0))
    policy_copy: Any = controller.policy
    first, second = policy_copy.head.seen
    assert first == pytest.approx([4.0, -2.0, 0.0, 0.0, -8.0])
    assert second == pytest.approx(
        [2.0, math.log10(5e-3), 0.25, math.log(2.0), 1.0], rel=1e-6
    )
    for _ in range(5):
        loop.update()
    with pytest.raises(ValueError, match="observes 'grad_norm': pass grad_norm= to"):
        controller.step(2.0)


def test_a_loss_that_requires_grad_gives_no_warning() -> None:
    loop = Loop()
    policy = always(0, features=("val_loss", "train_loss"))
    controller = PolicyLR(loop.optimizer, policy, **settings())
    loss = loop.loss(loop.generator, 32)
    assert loss.requires_grad
    record = controller.step(loss, train_loss=2 * loss)  # pytest fails on a warning
    assert record.val_loss == loss.item()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (-1.0, "val_loss must not be negative"),
        (1e6, "first val_loss must be at most 1000"),
    ],
)
def test_a_loss_that_no_policy_can_see_is_refused(loss: float, message: str) -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    with pytest.raises(ValueError, match=message):
        controller.step(loss)


def test_a_loop_that_never_evaluates_first_starts_as_the_rule_says() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, **settings())
    loop.update()
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 300)
    assert controller.history == [Record(0, None, 1e-2 / 300, 1 / 300)]
    loop.run(controller, 6)
    assert controller.history[-1].factor > 2.0, "far below its target"


def test_a_learned_policy_without_a_first_evaluation_warns_and_keeps() -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, always(0), **settings())
    with pytest.warns(UserWarning, match="training starts before the first evaluation"):
        loop.update()
    assert controller.get_last_lr()[0] == 1e-2
    loop.run(controller, 6)
    assert controller.get_last_lr()[0] == pytest.approx(5e-3)


def test_a_dry_run_logs_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    plain, watched = Loop(), Loop()
    with caplog.at_level(logging.INFO, "lr_gym.controllers"):
        controller = PolicyLR(
            watched.optimizer, "ramp_and_undo", dry_run=True, **settings()
        )
        for loop in (plain, watched):  # each with its own scheduler
            scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, 7)
            for _ in range(20):
                if loop is watched and controller.needs_evaluation:
                    controller.step(loop.evaluate())
                loop.update()
                scheduler.step()
    assert plain.used == watched.used
    assert same(plain.weights(), watched.weights())
    assert len(controller.history) == 4
    assert caplog.text.count("dry run: Record(") == 4
    # Its decisions are relative to the learning rate that the loop's scheduler set.
    assert controller.history[2].learning_rate == pytest.approx(1e-3 * 2.0)


# ---------------------------------------------------------------------------- exporting


def test_the_schedule_as_csv_and_as_a_replay(tmp_path: Path) -> None:
    loop = Loop()
    controller = PolicyLR(loop.optimizer, undo=loop.model, warmup_iters=3, **settings())
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


# -------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"interval": 0}, ValueError, "interval must be at least 1"),
        ({"max_iters": np.array(3)}, TypeError, "max_iters must be an integer"),
        ({"max_iters": 10**9}, ValueError, "pass larger intervals"),
        ({"max_iters": 1.5}, TypeError, "max_iters must be an integer"),
        ({"warmup_iters": 61}, ValueError, r"warmup_iters must be in \[0, 60\]"),
        ({"max_lr": 1e-3}, ValueError, "first group's learning rate must be in"),
        ({"min_lr": 1.0, "max_lr": 0.5}, ValueError, "min_lr must not exceed max_lr"),
        ({"dry_run": 1}, TypeError, "dry_run must be True or False"),
        ({"snapshot_device": "disk"}, ValueError, "snapshot_device must be one of"),
        ({"policy": "no_such_policy"}, ValueError, "policy must be one of default"),
        ({"policy": 3}, TypeError, "policy must be a name, a path or a policy"),
    ],
)
def test_a_wrong_argument_is_named(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    loop = Loop()
    with pytest.raises(error, match=message):
        PolicyLR(loop.optimizer, **({"undo": loop.model} | settings(**wrong)))
    with pytest.raises(
        TypeError, match=r"must be a torch\.optim\.Optimizer, got Linear"
    ):
        PolicyLR(nn.Linear(1, 1), **settings())  # type: ignore[arg-type]  # the point
