"""The law of the loss curve: its dynamics, its file, and its fit to runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import lr_gym
from lr_gym import LRTuningEnv, SurrogateTrainer, fit_surrogate, load_law, preset
from lr_gym.surrogate.law import (
    advance,
    initial_state,
    validation_loss,
)
from lr_gym.surrogate.law_files import packaged_law, packaged_laws
from lr_gym.surrogate.replay import predict
from lr_gym.surrogate.runs import load_runs, save_runs
from lr_gym.trainers.base import FloatArray
from tests.helpers.laws import ALIKE, POINTS, make_constants, make_law, planted_runs


def curve(rates: FloatArray, **overrides: Any) -> FloatArray:
    """The loss at `POINTS` of one run at `rates`, (300,)."""
    return np.asarray(predict(make_constants(**overrides), rates[None], POINTS)[0][0])


# ------------------------------------------------------------------------ the dynamics


@given(
    st.lists(st.floats(1e-3, 5e-3), min_size=1, max_size=5),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_without_damage_a_chunk_may_be_divided_anywhere(
    rates: list[float], first: int, second: int
) -> None:
    law = make_constants(slow_noise_share=0.5, slow_noise_pace=0.1)
    whole = parts = initial_state(law, ALIKE)
    for rate in rates:
        rate_array = np.array([rate])
        whole = advance(law, ALIKE, whole, rate_array, first + second)
        parts = advance(law, ALIKE, parts, rate_array, first)
        parts = advance(law, ALIKE, parts, rate_array, second)
    assert whole["damage"][0] == 0.0
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-9, atol=1e-12)


def test_damage_of_a_jump_by_hand() -> None:
    law = make_constants(tolerance_pace=0.1, max_log_lr_jump=1.0, damage_rate=0.5)
    rate = np.array([1e-3 * np.e**3])  # three e-folds above what the model is used to
    state = advance(law, ALIKE, initial_state(law, ALIKE), rate, 5)
    time = np.linspace(0.0, 5.0, 100_001)
    above = np.maximum(3.0 * np.exp(-0.1 * time) - 1.0, 0.0)
    squared = above**2
    expected = 0.5 * float(((squared[1:] + squared[:-1]) / 2 * np.diff(time)).sum())
    assert state["damage"][0] == pytest.approx(expected, rel=1e-6)
    # Whatever comes later, no more than until the jump has faded to the limit.
    later = advance(law, ALIKE, initial_state(law, ALIKE), rate, 10_000)
    soon = advance(law, ALIKE, initial_state(law, ALIKE), rate, np.log(3.0) / 0.1)
    assert later["damage"][0] == pytest.approx(soon["damage"][0])
    assert later["damage"][0] > state["damage"][0]


def test_predictions_at_constant_rates() -> None:
    constant = {rate: np.full(300, rate) for rate in (1e-4, 1e-3, 3e-3)}
    finals = [curve(rates)[-1] for rates in constant.values()]
    assert finals == sorted(finals, reverse=True)  # below damage, more is faster
    cooled = constant[3e-3].copy()
    cooled[240:] *= np.linspace(1.0, 0.0, 60)
    assert curve(cooled)[-1] < curve(constant[3e-3])[-1] - 0.02
    # Reached slowly, a high rate does no harm; at once, it destroys the run.
    slow: FloatArray = np.geomspace(1e-3, 0.05, 300, dtype=np.float64)
    sudden = np.full(300, 0.05)
    for rates in (slow, sudden):
        rates[250:] = 1e-4
    assert curve(sudden)[-1] > curve(slow)[-1] + 0.5
    assert 3.0 < curve(sudden)[-1] < 3.3 + 0.2
    untrained = np.zeros(300)
    assert np.all(curve(untrained) == curve(untrained)[0])
    assert curve(untrained)[0] == pytest.approx(4.2)


def test_the_gap_is_part_of_the_loss() -> None:
    rates = np.full(300, 3e-3)
    risen = curve(rates, gap_scale=2.0, gap_exponent=2.0, gap_share=0.5)
    law = make_constants()
    progress = [s["progress"][0] for s in predict(law, rates[None], POINTS)[1]]
    assert risen - curve(rates) == pytest.approx(np.square(progress))


# ------------------------------------------------------------------------------- files


def test_a_law_survives_its_file(tmp_path: Path) -> None:
    law = make_law(jitter=0.1, gap_share=0.25)
    law.save(tmp_path / "law.json")
    assert load_law(tmp_path / "law.json") == law
    assert json.loads((tmp_path / "law.json").read_text())["format"] == 2


def test_the_laws_of_the_package_load_and_name_their_runs() -> None:
    laws = packaged_laws()
    assert laws
    for (corpus, scale), path in laws.items():
        law = packaged_law(corpus, scale)
        assert (law.training.corpus, law.training.scale) == (corpus, scale)
        assert path.stat().st_size < 5_000
        assert law.runs >= 40
        rates = np.full((1, 600), law.training.learning_rate)
        losses = predict(law.constants, rates, np.array([0, 600]))[0][0]
        assert 0.5 < losses[1] < losses[0] - 1.0


def broken(**changes: Any) -> str:
    content = {"format": 2, **dataclasses.asdict(make_law())}
    for name, value in changes.items():
        place, _, field = name.rpartition("__")
        (content[place] if place else content)[field] = value
    return json.dumps(content)


def test_large_integers_are_floats(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(broken(constants__divergence_rate=10**20, highest_rate=10**20))
    law = load_law(path)
    assert isinstance(law.constants.divergence_rate, float)
    assert SurrogateTrainer(law).train(10, [1e-3])[0] > 0.0


def test_a_law_without_losses_has_finite_observations(tmp_path: Path) -> None:
    """Its loss falls to 0, which has no logarithm."""
    losses = ("floor", "plateau", "amplitude", "noise_loss")
    path = tmp_path / "law.json"
    path.write_text(broken(**{f"constants__{name}": 1e-30 for name in losses}))
    for reward in ("loss_reduction", "log_loss_reduction"):
        env = LRTuningEnv(
            trainer=str(path), features=("loss_slope",), reward=reward, max_iters=600
        )
        env.reset(seed=0)
        terminated = False
        while not terminated:
            observation, value, terminated, _, _ = env.step(2)
            assert np.isfinite([observation[0], value]).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[1, 2]", "must be a JSON object, got list"),
        ('{"format": 2}', "lacks"),
        ("[" * 100_000, "recursion"),
        (broken(format=1), "format must be 2, got 1"),
        (broken(extra=1), r"unknown \['extra'\]"),
        (broken(constants={}), "lacks"),
        (broken(constants__exponent=-1.0), "exponent must be finite and in"),
        (broken(constants__exponent="1"), "exponent must be a number"),
        (broken(constants__noise_rate=float("nan")), "noise_rate must be finite"),
        (broken(constants__jitter=True), "jitter must be a number"),
        (broken(constants__grad_norm=[1.0]), "grad_norm must be 4 numbers"),
        (broken(constants__grad_norm=3.0), "grad_norm must be 4 numbers"),
        (broken(constants__plateau=9.0), "plateau must be in"),
        (broken(training__n_layer=0), "n_layer must be at least 1"),
        (broken(training__scale="huge"), "scale must be one of"),
        (broken(lowest_rate=0.5), "highest_rate must be"),
        (broken(runs="many"), "runs must be an integer"),
        (broken(entropy_rate=10**400), "entropy_rate must be finite"),
        (broken(constants__tolerance=1e-300), "tolerance must be in"),
        (broken(constants__noise_clock_exponent=99.0), "noise_clock_exponent must be"),
        (broken(constants__tolerance_spread=99.0), "tolerance_spread must be"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=rf"law\.json is not a law of the loss: .*{reason}"
    ):
        load_law(path)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="is not a law of the loss"):
        load_law(path)
    with pytest.raises(ValueError, match="holds no recorded runs"):
        load_runs(path)


def test_the_law_needs_no_torch() -> None:
    script = (
        "import sys, types\n"
        "sys.modules['torch'] = None\n"
        "package = types.ModuleType('lr_gym')\n"
        f"package.__path__ = [{str(Path(lr_gym.__file__).parent)!r}]\n"
        "sys.modules['lr_gym'] = package\n"
        "import lr_gym.surrogate.law_files, lr_gym.surrogate.fitting\n"
        "import lr_gym.surrogate.trainer\n"
        "print(len(lr_gym.surrogate.law_files.packaged_laws()) > 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "True\n"


# ----------------------------------------------------------------------------- fitting


def test_fitting_recovers_a_known_law() -> None:
    law, seed = make_constants(), 1
    found = fit_surrogate(planted_runs(law, seed), preset("tiny"))
    fresh = np.stack([run.rates for run in planted_runs(law, seed + 100)[:-1]])
    fresh *= 1.3  # other rates than those it was fitted on
    expected = predict(law, fresh, POINTS)[0]
    error = np.abs(predict(found.constants, fresh, POINTS)[0] - expected)
    assert np.mean(error[:, -1]) < 0.02
    assert np.median(error[:, -1]) < 0.01
    assert found.constants.max_log_lr_jump == pytest.approx(1.8, abs=0.3)
    assert found.constants.efficiency_spread == pytest.approx(0.03, abs=0.02)
    assert found.constants.tolerance_spread == pytest.approx(0.3, abs=0.2)
    assert 0.09 < found.constants.divergence_rate < 10.0
    assert found.runs == 37
    assert found.lowest_rate == pytest.approx(3e-4)


def test_runs_survive_their_file(tmp_path: Path) -> None:
    runs = planted_runs(make_constants(), 0)
    save_runs(tmp_path / "runs.npz", runs)
    assert (tmp_path / "runs.npz").stat().st_size < 100_000
    for ours, theirs in zip(load_runs(tmp_path / "runs.npz"), runs, strict=True):
        assert (ours.name, ours.seed) == (theirs.name, theirs.seed)
        np.testing.assert_allclose(ours.val_loss, theirs.val_loss, rtol=1e-6)
        np.testing.assert_allclose(ours.rates, theirs.rates, rtol=1e-6)


def test_wrong_runs_are_refused() -> None:
    runs = planted_runs(make_constants(), 0)
    with pytest.raises(ValueError, match="number of runs must be at least 3"):
        fit_surrogate(runs[:2], preset("tiny"))
    for changes, reason in (
        ({"iterations": POINTS[::-1]}, "must increase"),
        ({"iterations": POINTS - 10}, "must be 3 or more, from 0 on"),
        ({"iterations": POINTS * 2}, "end within the rates"),
        ({"rates": -runs[0].rates}, "must be finite and >= 0"),
        ({"val_loss": runs[0].val_loss[1:]}, "val_loss of '0' must have 14"),
        ({"val_loss": np.full(14, np.nan)}, "first val_loss of '0' must be finite"),
    ):
        with pytest.raises(ValueError, match=reason):
            dataclasses.replace(runs[0], **changes)


@pytest.mark.parametrize("module", ["scipy.optimize", "threadpoolctl"])
def test_fitting_names_its_extra(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*lr-gym\[surrogate\]"):
        fit_surrogate(planted_runs(make_constants(), 0), preset("tiny"))


def test_fitting_keeps_linear_algebra_to_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def threads() -> set[int]:
        pools = threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    seen: list[set[int]] = []

    def search(*_: object, **__: object) -> None:
        seen.append(threads())
        raise InterruptedError  # it has been seen

    monkeypatch.setattr("scipy.optimize.least_squares", search)
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with pytest.raises(InterruptedError):
            fit_surrogate(planted_runs(make_constants(), 0), preset("tiny"))
        assert threads() == before
    assert seen == [{1}]


@settings(max_examples=30)
@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30))
def test_losses_stay_finite_and_bounded(rates: list[float]) -> None:
    law = make_constants()
    state = initial_state(law, ALIKE)
    for rate in rates:
        state = advance(law, ALIKE, state, np.array([rate]), 10)
    loss = validation_loss(law, state, np.log(np.array([max(rates[-1], 1e-12)])))
    assert 0.0 < loss[0] < 8.0
