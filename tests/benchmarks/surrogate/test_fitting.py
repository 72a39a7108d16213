"""Accuracy of the law: its runs, its scores, and the published laws."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paths import RESULTS
from benchmarks.surrogate import fitting, proposals
from benchmarks.surrogate import runs as law_runs
from benchmarks.surrogate.fitting import OUR_LAW, Args, collect, main, scores
from benchmarks.surrogate.pictures import draw_curves
from benchmarks.surrogate.published_laws import MULTI_POWER, TISSUE, multi_power, tissue
from lr_gym import load_law, preset
from lr_gym.mdp.instances import HELD_OUT_LR_FACTORS
from lr_gym.surrogate.law_files import packaged_laws
from lr_gym.surrogate.runs import RecordedRun, load_runs, save_runs
from tests.helpers.laws import make_constants, make_law, planted_runs
from tests.helpers.small import small_config

RECORDED = RESULTS / "surrogate"
CONFIG = small_config(max_iters=40, eval_interval=10, warmup_iters=4)


def test_a_collection_continues_without_repeating_runs(tmp_path: Path) -> None:
    plans = law_runs.fitting_plan(CONFIG)
    path, args = tmp_path / "runs.npz", Args(env="markov", size=2)
    assert collect(CONFIG, plans, path, args, most=3) == 3
    first = load_runs(path)
    assert [run.name for run in first] == [plan.name for plan in plans[:3]]
    assert first[0].iterations.tolist() == [0, 10, 20, 30, 40]
    assert all(run.val_loss[-1] < run.val_loss[0] for run in first)
    assert collect(CONFIG, plans[:4], path, args, most=None) == 1
    assert collect(CONFIG, plans[:4], path, args, most=None) == 0
    second = load_runs(path)
    assert [run.seed for run in second] == [0, 1, 2, 3]
    assert np.array_equal(second[0].val_loss, first[0].val_loss)


def test_runs_of_other_code_are_named_and_never_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = law_runs.fitting_plan(CONFIG)
    path, args = tmp_path / "runs.npz", Args(env="markov", size=2)
    collect(CONFIG, plans[:2], path, args, most=None)
    assert fitting.code_of(path) == fitting.runs_code()
    monkeypatch.setattr(fitting, "runs_code", lambda: "changed")
    assert collect(CONFIG, plans[:2], path, args, most=None) == 0
    assert "2 old runs: other code made them" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"old runs: .* and 1 are missing"):
        collect(CONFIG, plans[:3], path, args, most=None)
    save_runs(path, load_runs(path))  # as before runs named their code
    assert fitting.code_of(path) is None
    with pytest.raises(SystemExit, match="1 are missing"):
        collect(CONFIG, plans[:3], path, args, most=None)


def test_the_plans_have_distinct_runs_of_all_kinds() -> None:
    fitting, held_out = law_runs.fitting_plan(CONFIG), law_runs.held_out_plan(CONFIG)
    assert len({plan.seed for plan in fitting + held_out}) == len(fitting + held_out)
    names = [plan.name for plan in fitting + held_out]
    assert len(set(names)) == len(names)
    for plan in fitting + held_out:
        assert plan.rates.shape == (40,)
        assert (plan.rates >= 0).all()
    assert sum(name.startswith("walk") for name in names) == 14
    peaks = {plan.rates.max() for plan in held_out if "linear" in plan.name}
    assert len(peaks) == 4


def test_proposals_are_the_curves_of_the_rule_on_the_law(tmp_path: Path) -> None:
    config, law = preset("tiny", "markov"), tmp_path / "law.json"
    replace(make_law(), training=config).save(law)
    curves = proposals.propose(proposals.Args(), config, law)
    assert len(curves) == len(HELD_OUT_LR_FACTORS)
    for factor, (_, rates) in zip(HELD_OUT_LR_FACTORS, curves, strict=True):
        assert rates.shape == (config.max_iters,)
        expected = factor * config.learning_rate / 300 * np.arange(1, 11) / 21
        assert rates[:10] == pytest.approx(expected), "far below, and warming up"
        # In this law the update size is the LR; the target is reached and held.
        assert rates[config.max_iters // 2] == pytest.approx(0.07, rel=0.11)
        assert rates[-1] < 7e-3, "cooled down"


def test_the_laws_of_the_package_are_those_of_the_reports() -> None:
    for (corpus, scale), path in packaged_laws().items():
        name = f"{corpus}-{scale}"
        assert path.read_bytes() == (RECORDED / f"{name}.json").read_bytes()
        report = json.loads((RECORDED / f"{name}-report.json").read_text())
        assert report["config"]["corpus"] == corpus
        assert report["fitted_on"] == load_law(path).runs


@pytest.mark.slow
@pytest.mark.real_text
def test_the_recorded_runs_give_the_claimed_accuracy(tmp_path: Path) -> None:
    for kind in ("fit", "held-out"):
        shutil.copy(RECORDED / f"shakespeare-mini-{kind}.npz", tmp_path)
    report = main(Args(scale="mini", collect=False, out=tmp_path))
    errors = report["laws"][OUR_LAW]["held_out"]
    assert errors["mean_final_error"] <= 0.03
    assert errors["rank_correlation"] >= 0.9
    assert load_law(tmp_path / "shakespeare-mini.json").runs == 54


def test_published_laws_by_hand() -> None:
    rates = np.full((1, 40), 2e-3)
    forward = 2e-3 * np.arange(1, 41)
    expected = 1.5 + 0.5 * forward**-0.3
    losses = tissue(np.array([1.5, np.log(0.5), 0.3, 0.0]), rates)[0]
    assert losses == pytest.approx(expected)
    parameters = np.array([1.5, np.log(0.5), 0.3, 1.0, 0.5, 0.5, 0.5])
    assert multi_power(parameters, rates)[0] == pytest.approx(expected[9::10])
    falling = rates.copy()
    falling[:, 20:] = 1e-3
    without = multi_power(np.array([1.5, np.log(0.5), 0.3, -99, 0, 1, 1]), falling)[0]
    with_gain = multi_power(parameters, falling)[0]
    assert with_gain[:2] == pytest.approx(without[:2])
    assert (with_gain[2:] < without[2:]).all()


def test_scores_and_a_figure() -> None:
    runs = planted_runs(make_constants(), 0)[:8]
    real = np.stack([run.val_loss for run in runs])[:, 1:]
    perfect = scores(real, runs)
    assert perfect["mean_final_error"] == 0.0
    assert (perfect["rank_correlation"], perfect["r2_curves"]) == (1.0, 1.0)
    assert scores(real + 0.1, runs)["worst_final_error"] == pytest.approx(0.1)
    for published in (TISSUE, MULTI_POWER):
        fitted = published.losses(published.fit(runs), runs)
        assert scores(fitted, runs)["r2_curves"] > 0.5
    assert "<svg" in draw_curves("law", _named(runs), real)


def _named(runs: list[RecordedRun]) -> list[RecordedRun]:
    return [replace(run, name=f"cosine at {k + 1}e-3") for k, run in enumerate(runs)]
