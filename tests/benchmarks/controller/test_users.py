"""The users' benchmark: its loop, its pilots, its summary."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

from benchmarks.controller.users import compare
from benchmarks.controller.users.compare import METHODS
from benchmarks.controller.users.loop import run
from benchmarks.controller.users.pilots import RIVALS, TUNED, Pilot, cosine, wsd
from benchmarks.controller.users.tasks import CHOOSING, Training, regression

HUNDREDS = replace(CHOOSING["sines-100"], iterations=40, evaluations=10)
TASK = replace(HUNDREDS, make=partial(regression, unit=1.0))


def test_left_alone_is_a_plain_loop() -> None:
    training = TASK.make(3)
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-2)
    for _ in range(TASK.iterations):
        inputs, targets = training.draw()
        optimizer.zero_grad()
        loss = F.mse_loss(training.model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    outcome = run(TASK, 3, Pilot, 1e-2)
    assert outcome.loss == training.evaluate()
    assert outcome.rates == (1e-2,) * TASK.iterations


@pytest.mark.parametrize("name", METHODS)
def test_every_pilot_trains_and_repeats(name: str) -> None:
    if name == "greedy":
        pytest.importorskip("transformers")
    make = METHODS[name]
    first, second = (run(TASK, 0, make, 1e-2) for _ in range(2))
    assert first == second
    assert math.isfinite(first.loss)
    assert len(first.rates) == TASK.iterations


def test_schedules_have_their_shapes() -> None:
    for shape in (cosine, wsd):
        assert shape(0.0) == 0.0
        assert shape(0.05) == 1.0
        assert shape(1.0) == pytest.approx(0.0, abs=1e-12)
    assert wsd(0.5) == wsd(0.7) == 1.0
    assert cosine(0.525) == pytest.approx(0.5)


def test_a_run_that_diverges_is_an_outcome() -> None:
    assert run(TASK, 0, Pilot, 1e18).loss == math.inf


def test_a_rival_that_cannot_apply_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_two(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
        return [torch.optim.AdamW([p], lr=rate) for p in model.parameters()]

    def make(seed: int) -> Training:
        return replace(TASK.make(seed), make_optimizers=in_two)

    monkeypatch.setitem(compare.TASKS, "choosing", {"two": replace(TASK, make=make)})
    case = compare.Case("two", "schedule-free", 1.0, 0)
    assert compare.final_loss("choosing", case) is None


def test_excess_is_of_the_best_tuned_mean() -> None:
    losses: dict[str, float | None] = {
        "sines-100 constant 1 0": 4.0,
        "sines-100 constant 1 1": 6.0,
        "sines-100 wsd 0.5 0": 2.0,
        "sines-100 wsd 0.5 1": math.inf,
        "sines-100 controller 30 0": 10.0,
        "sines-100 controller 30 1": math.inf,
        "sines-100 schedule-free 1 0": None,
    }
    summary = compare.summarize("choosing", losses)
    assert summary["best"] == {"sines-100": (5.0, "constant x1")}
    assert summary["excess"] == {
        "controller from x30": {"sines-100": [math.log(2.0), compare.WORST]}
    }
    (row,) = compare.table(summary)
    assert row["runs with 1 or more"] == "1"


def test_runs_of_old_code_run_again(tmp_path: Path) -> None:
    path = tmp_path / "choosing.json"
    losses = {"mlp wsd 1 0": 1.0, "mlp controller 1 0": 2.0}
    path.write_text(json.dumps({"code": compare.codes(), "final_loss": losses}))
    assert compare.finished(path, compare.codes()) == losses
    newer = compare.codes() | {"controller": "newer"}
    assert compare.finished(path, newer) == {"mlp wsd 1 0": 1.0}


def test_unknown_names_are_errors() -> None:
    with pytest.raises(SystemExit, match=r"unknown .*'warp'.*'constant'"):
        compare.plan(compare.Args(methods=("warp",)))
    count = len(compare.plan(compare.Args(only=("mlp",), seeds=1)))
    assert count == len(TUNED) * 8 + (len(RIVALS) + 1) * 3


def test_losses_below_zero_are_compared_by_difference() -> None:
    log_task = replace(TASK, is_log=True)
    assert log_task.excess(-1.0, -1.5) == 0.5
    shifted = replace(TASK, floor=-1.0)
    assert shifted.excess(-0.5, -0.75) == pytest.approx(math.log(2.0))
    assert TASK.excess(math.nan, 1.0) == math.inf


@pytest.mark.parametrize("name", ["adalrs", "controller"])
def test_a_rate_far_too_low_is_raised(name: str) -> None:
    task = replace(TASK, iterations=200, evaluations=50)
    outcome = run(task, 0, METHODS[name], 1e-4)
    assert max(outcome.rates) > 3e-4
    assert outcome.loss < run(task, 0, Pilot, 1e-4).loss


def test_the_unit_of_a_loss_changes_nothing() -> None:
    task = replace(TASK, iterations=60, make=partial(scaled, factor=1.0))
    larger = replace(task, make=partial(scaled, factor=2.0**10))
    rates, others = (
        run(each, 0, METHODS["controller"], 1e-2).rates for each in (task, larger)
    )
    assert others == pytest.approx(rates, rel=1e-3)  # AdamW's eps has a unit


def scaled(seed: int, factor: float) -> Training:
    training = TASK.make(seed)
    return replace(training, loss=lambda m, batch: factor * training.loss(m, batch))


def test_a_stalled_loss_lowers_the_rate() -> None:
    plateau = RIVALS["plateau"](TASK.make(0), 1e-2, TASK.iterations)
    for _ in range(12):  # the patience is 10 evaluations
        plateau.evaluated(1.0)
    assert plateau.rates() == [pytest.approx(1e-3)]


def test_schedule_free_evaluates_the_average() -> None:
    training = TASK.make(0)
    pilot = RIVALS["schedule-free"](training, 1e-2, TASK.iterations)
    for _ in range(5):
        loss = training.loss(training.model, training.draw())
        loss.backward()  # type: ignore[no-untyped-call]
        pilot.optimizers[0].step()
    trained = training.evaluate()
    with pilot.evaluating():
        assert training.evaluate() != trained
    assert training.evaluate() == pytest.approx(trained)
