"""The protocol: equal budgets, held-out test seeds, a grid that widens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.comparison.jobs import Job
from benchmarks.comparison.methods import METHODS, find_method
from benchmarks.comparison.protocol import Protocol, Task, chosen_peak, plan

TASK = Task("markov", {"scale": "tiny"})
BASE = 3e-3  # the preset's initial learning rate at tiny


def record(job: Job, loss: Callable[[float], float]) -> dict[str, Any]:
    """A finished job whose losses follow from its rates."""
    rates = job.learning_rates or (BASE,) * len(job.seeds)
    return {
        "runs": [
            {
                "seed": seed,
                "learning_rate": rate,
                "metrics": {"final_val_loss": loss(rate)},
                "curves": {"learning_rate": [rate, rate / 2], "action": [1, 0]},
            }
            for seed, rate in zip(job.seeds, rates, strict=True)
        ]
    }


def finish(
    names: list[str], protocol: Protocol, loss: Callable[[float], float]
) -> list[Job]:
    """Run the plan to its end on made-up losses."""
    done: dict[str, Any] = {}
    while True:
        jobs = plan([TASK], names, protocol, done)
        missing = [job for job in jobs if job.file_name not in done]
        if not missing:
            return jobs
        for job in missing:
            done[job.file_name] = record(job, loss)


def bowl(best: float) -> Callable[[float], float]:
    return lambda rate: float(np.log(rate / best) ** 2)


def test_a_schedule_is_tuned_then_tested_at_its_best_peak() -> None:
    protocol = Protocol()
    jobs = finish(["linear"], protocol, bowl(BASE * 2))
    tune = [job for job in jobs if job.phase == "tune"]
    (test,) = (job for job in jobs if job.phase == "test")
    assert sum(len(job.seeds) for job in tune) == protocol.budget == 24
    assert set(test.learning_rates) == {BASE * 2}
    assert test.seeds == tuple(range(10))


@pytest.mark.parametrize(("best", "added"), [(BASE * 64, 3), (BASE / 16, 2)])
def test_a_best_value_at_the_edge_widens_the_grid(best: float, added: int) -> None:
    protocol = Protocol()
    jobs = finish(["linear"], protocol, bowl(best))
    extra = [job for job in jobs if job.phase == "tune" and len(job.seeds) == 3]
    assert len(extra) == added  # one beyond the best, to see that it is
    (test,) = (job for job in jobs if job.phase == "test")
    assert test.learning_rates[0] == pytest.approx(best)


def test_widening_ends() -> None:
    jobs = finish(["linear"], Protocol(widen=2), lambda rate: -rate)
    extra = [job for job in jobs if job.phase == "tune" and len(job.seeds) == 3]
    assert len(extra) == 2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_may_spend_the_same(name: str) -> None:
    protocol = Protocol()
    method = find_method(name)
    jobs = finish([name], protocol, bowl(BASE))
    if method.learns:
        assert {job.budget for job in jobs if job.phase == "learn"} == {protocol.budget}
    else:
        runs = sum(len(job.seeds) for job in jobs if job.phase == "tune")
        rates, _ = chosen_peak(TASK, name, protocol, {})
        assert rates is None
        grid = len(protocol.grid(name, method)) * len(protocol.seeds(method))
        assert grid * method.cost <= protocol.budget
        assert runs >= grid


@pytest.mark.parametrize("name", METHODS)
def test_no_choice_sees_a_test_seed(name: str) -> None:
    protocol = Protocol()
    jobs = finish([name], protocol, bowl(BASE))
    tuning = {seed for job in jobs if job.phase == "tune" for seed in job.seeds}
    assert not tuning & set(protocol.test_seeds)
    tested = [job for job in jobs if job.phase in ("test", "learn")]
    seeds = sorted(seed for job in tested for seed in job.seeds)
    assert seeds == list(protocol.test_seeds)  # each once
    assert len({job.replicate for job in tested}) == len(tested)


def test_an_agent_brings_its_controls() -> None:
    jobs = finish(["q_improved"], Protocol(), bowl(BASE))
    open_loop, shuffled = (
        job for job in jobs if job.phase in ("open_loop", "shuffled")
    )
    assert open_loop.seeds == shuffled.seeds == tuple(range(10))
    assert open_loop.script[0] == pytest.approx((BASE, BASE / 2))
    assert {tuple(sorted(actions)) for actions in shuffled.script} == {(0, 1)}
    assert not [j for j in finish(["wsd"], Protocol(), bowl(BASE)) if j.script]


def test_jobs_that_differ_have_files_that_differ() -> None:
    jobs = finish(list(METHODS), Protocol(), bowl(BASE))
    names = [job.file_name for job in jobs]
    assert len(set(names)) == len(names)


def test_a_costly_method_leaves_out_the_outer_peaks() -> None:
    grid = Protocol().grid("lookahead", find_method("lookahead"))
    assert grid == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"agent 'adam' is unknown; .* Use one of constant"
    ):
        find_method("adam")
