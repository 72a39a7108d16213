"""Every result names what made it; its state follows code, file and check."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import results_check
from benchmarks.checks import runs, states
from benchmarks.checks.registry import REGISTRY, Result
from benchmarks.checks.runs import Run
from benchmarks.checks.simulated_runs import final_or_first
from benchmarks.checks.states import Ledger, problems, state
from benchmarks.dependencies import Sources
from benchmarks.provenance import provenance
from lr_gym.trainers.base import FloatArray

MODULE = "benchmarks.script"


def published(path: Path) -> list[Run]:
    """Return ten runs; today each gives its number."""
    losses = json.loads(path.read_text())["losses"]
    return [Run(f"run {n}", [losses[n]], partial(list, [float(n)])) for n in range(10)]


RESULT = Result(("widths.json",), (MODULE,), published)


class Checkout:
    """A checkout with one script and one result."""

    def __init__(self, folder: Path) -> None:
        self.root, self.results = folder, folder / "results"
        self.ledger = folder / "results" / "checks.json"
        self.results.mkdir()
        (folder / "benchmarks").mkdir()
        self.write_script("x = 1\n")

    def write_script(self, source: str) -> None:
        (self.root / "benchmarks" / "script.py").write_text(source)

    def write_result(self, losses: list[float], **more: Any) -> None:
        made = {"commit": "abc1234", "hardware": {"cpu_capability": "AVX2"}, **more}
        content = {"losses": losses, "provenance": made}
        (self.results / "widths.json").write_text(json.dumps(content))

    def code(self) -> str:
        return Sources(self.root).code_hash(MODULE)

    def state(self) -> str:
        states._provenances.cache_clear()
        sources, ledger = Sources(self.root), Ledger(self.ledger)
        return state("widths", RESULT, ledger, sources, self.results)

    def problems(self) -> list[str]:
        states._provenances.cache_clear()
        return problems(Ledger(self.ledger), {"widths": RESULT}, self.results)

    def check(self) -> None:
        chosen = runs.sample(published(self.results / "widths.json"), 0.2, 100.0)
        entry = runs.run_again(chosen, 100.0) | {
            "of": 10,
            "code": self.code(),
            "result": states.digest(RESULT, self.results),
        }
        Ledger(self.ledger).write("widths", entry)


@pytest.fixture(name="checkout")
def fixture_checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_result_of_this_code_is_outdated_by_a_change_but_not_by_words(
    checkout: Checkout,
) -> None:
    checkout.write_result([0.0] * 10, code=checkout.code())
    assert checkout.state() == "made by this code"
    checkout.write_script('"""A script."""\nx = 1  # one\n')
    assert checkout.state() == "made by this code"
    checkout.write_script("x = 2\n")
    assert checkout.state() == "older than the code, not checked"


def test_a_check_counts_until_the_code_or_the_result_changes(
    checkout: Checkout,
) -> None:
    losses = [float(n) for n in range(10)]
    checkout.write_result(losses)
    assert checkout.state() == "older than the code, not checked"
    checkout.check()
    assert (
        checkout.state()
        == "2 of 10 runs again (run 4, run 6): the same to the last bit"
    )
    assert checkout.problems() == []
    checkout.write_script("x = 2\n")
    assert checkout.state() == "older than the code, not checked"
    checkout.write_script("x = 1\n")
    checkout.write_result(losses, commit="def5678")
    assert checkout.state() == "older than the code, not checked"


def test_a_tampered_result_differs_until_it_is_replaced(checkout: Checkout) -> None:
    checkout.write_result([n + 0.1 + n / 1e6 for n in range(10)])
    checkout.check()
    assert checkout.state().startswith("differs: 2 of 10 runs again")
    assert checkout.problems() == ["widths differs from what the code gives now"]
    checkout.write_script("x = 2\n")  # other code is no reason to forget it
    assert checkout.problems() == ["widths differs from what the code gives now"]
    checkout.write_result([float(n) for n in range(10)])
    assert checkout.problems() == []


def test_files_without_result_and_results_without_file_or_commit_are_problems(
    checkout: Checkout,
) -> None:
    (checkout.results / "new").mkdir()
    (checkout.results / "new" / "losses.json").write_text("{}")
    assert checkout.problems() == [
        "new/losses.json is no file of a result in REGISTRY",
        "widths has no file widths.json",
        "widths does not say which commit made it",
    ]
    (checkout.results / "new" / "losses.json").unlink()
    checkout.write_result([], commit=None)
    assert checkout.problems() == ["widths does not say which commit made it"]
    checkout.write_result([])
    Ledger(checkout.ledger).write("heights", {"verdict": runs.SAME_BITS, "result": ""})
    assert checkout.problems() == ["heights is checked but no result"]


def test_every_committed_result_is_covered() -> None:
    assert problems(Ledger()) == []


@pytest.mark.parametrize(
    ("shift", "noisy", "verdict"),
    [
        (lambda x: x, False, runs.SAME_BITS),
        (lambda x: x * (1 + 1e-9), False, runs.SAME_ROUNDED),
        (lambda x: x + np.resize([0.01, -0.01], x.shape), True, runs.WITHIN_NOISE),
        (lambda x: x + np.resize([0.01, -0.01], x.shape), False, runs.DIFFERS),
        (lambda x: x + np.resize([0.011, 0.01], x.shape), True, runs.DIFFERS),
        (lambda x: np.where(x == 2.0, np.nan, x), True, runs.DIFFERS),
        (lambda x: x[:-1], True, runs.DIFFERS),
    ],
)
def test_verdicts(shift: Callable[[Any], Any], noisy: bool, verdict: str) -> None:
    before: FloatArray = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = runs.compare([before], [shift(before)], noisy=noisy)
    assert found["verdict"] == verdict


@pytest.mark.parametrize(
    ("error", "verdict"), [(0.002, runs.FITTED_ALIKE), (0.004, runs.DIFFERS)]
)
def test_a_law_fitted_again_predicts_alike(error: float, verdict: str) -> None:
    again = [1.0 + error, 2.0 + error]
    fit = Run("refit", [1.0, 2.0], partial(list, again), tolerance=0.003)
    assert runs.run_again([fit], 60.0)["verdict"] == verdict


def test_equal_divergence_is_equal() -> None:
    losses = np.array([1.0, np.nan])
    assert runs.compare([losses], [losses], noisy=True)["verdict"] == runs.SAME_BITS
    alone = runs.compare([losses], [losses + 0.1], noisy=True)
    assert alone["verdict"] == runs.DIFFERS  # one pair says nothing of noise


def test_a_sample_is_a_tenth_that_fits_the_time_and_never_empty() -> None:
    def named(n: int, seconds: float, *, always: bool = False) -> Run:
        return Run(str(n), [0.0], list, seconds, always=always)

    many = [named(n, 1.0) for n in range(30)]
    assert len(runs.sample(many, 0.1, 100.0)) == 3
    assert runs.sample(many, 0.1, 100.0) == runs.sample(many, 0.1, 100.0)
    assert len(runs.sample(many, 0.1, 2.0)) == 2
    slow = [named(1, 50.0), named(2, 40.0), named(3, 0.0, always=True)]
    assert [run.key for run in runs.sample(slow, 0.1, 45.0)] == ["3", "2"]
    assert [run.key for run in runs.sample(slow, 0.1, 10.0)] == ["3"]
    assert [run.key for run in runs.sample(slow[:2], 0.1, 10.0)] == ["2"]


def test_the_worst_part_of_a_check_is_its_verdict() -> None:
    exact = Run("fit", [1.0], partial(list, [1.0]), noisy=False)
    trained = Run("runs", [1.0, 2.0], partial(list, [1.1, 1.9]))
    entry = runs.run_again([exact, trained], 100.0)
    assert entry["verdict"] == runs.WITHIN_NOISE
    assert entry["runs"] == ["fit", "runs"]


@pytest.mark.slow
@pytest.mark.real_text
@pytest.mark.filterwarnings("ignore:.*is a partial copy of text8")
@pytest.mark.parametrize("name", [n for n, r in REGISTRY.items() if r.runs])
def test_the_runs_of_a_committed_result_are_known(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "1")
    result = REGISTRY[name]
    assert result.runs is not None
    found = result.runs(result.place())
    assert len({run.key for run in found}) == len(found) > 0
    assert all(run.published for run in found)


def test_damaged_runs_are_compared_by_their_first_loss() -> None:
    nan = float("nan")
    assert final_or_first(np.array([3.5, 2.0, 2.5])) == 2.5
    assert final_or_first(np.array([3.5, 533.0, 94.0])) == 3.5
    assert final_or_first(np.array([3.5, 533.0, nan])) == 3.5


@pytest.mark.slow
def test_a_committed_result_comes_out_again() -> None:
    result = REGISTRY["surrogate/damage"]
    assert result.runs is not None
    entry = runs.run_again(result.runs(result.place()), 100.0)
    assert entry["verdict"] in (runs.SAME_BITS, runs.SAME_ROUNDED)


def test_an_unknown_result_is_named() -> None:
    with pytest.raises(SystemExit, match="no result is called 'widhts'"):
        results_check.main(results_check.Args(rerun=("widhts",)))


def test_a_result_names_the_code_of_the_running_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main = type(sys)("__main__")
    main.__spec__ = type("Spec", (), {"name": "benchmarks.controller.widths"})()
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["widths.py", "--seeds", "1"])
    expected = Sources().code_hash("benchmarks.controller.widths")
    assert provenance()["code"] == expected
    monkeypatch.setattr("benchmarks.provenance.STARTED", 0.0)  # it changed since
    assert provenance()["code"] is None
