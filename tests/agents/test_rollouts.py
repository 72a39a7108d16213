"""Recorded runs of an agent, fine-tuning of policies, and damage in the loss law."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents import train_controller
from agents.agent import Agent, Observation
from agents.rollouts import final_errors, record_runs
from agents.train_controller import Args
from benchmarks.paths import RESULTS
from lr_gym import fit_surrogate, load_controller, load_law, preset
from lr_gym.surrogate.law_files import packaged_laws
from lr_gym.surrogate.replay import predict
from lr_gym.surrogate.runs import RecordedRun, load_runs, save_runs
from tests.helpers.laws import POINTS, make_constants, make_law, planted_runs

RECORDED = RESULTS / "surrogate"
SCRIPT = [1, 2, 3, 1, 3, 3, 2]  # of halve, keep, double, undo; then keep
SETTINGS: dict[str, Any] = {
    "allow_undo": True,
    "decision_spacing": "dense_start",
    "base_schedule": "wsd",
}


class Scripted(Agent):
    """Does what `SCRIPT` says."""

    settings = SETTINGS

    def __init__(self, seed: int) -> None:
        self.left = list(SCRIPT)

    def act(self, observation: Observation) -> int:
        return self.left.pop(0) if self.left else 1


def test_an_undone_chunk_is_as_if_it_had_not_been() -> None:
    rates = np.full((2, 300), 1e-3)
    rates[0, :10] = 8e-3  # until the first point
    undone = np.zeros((2, len(POINTS)), dtype=np.bool_)
    undone[0, 2] = True  # back to the start, at 10 of 300
    law = make_constants()
    losses, states = predict(law, rates, POINTS, undone=undone)
    alone, _ = predict(law, rates[1:, 10:], POINTS[2:] - 10)
    assert losses[0, 2:] == pytest.approx(alone[0], abs=1e-12)
    assert losses[1] == pytest.approx(predict(law, rates, POINTS)[0][1])
    assert losses[0, 2] != pytest.approx(losses[1, 2], abs=1e-3)
    assert states[2]["progress"][0] == pytest.approx(10 * 1e-3 / (1 + 1e-3 / 3e-3))


@pytest.mark.slow
def test_a_fit_knows_of_steps_back() -> None:
    law = make_constants()
    runs = planted_runs(law, 1)[:26]
    rates = np.stack([run.rates for run in runs[:16]])
    first, last = POINTS[4], POINTS[5]
    rates[:, first:last] = 0.06  # sixty times a good one, and taken back at once
    undone = np.zeros((16, len(POINTS)), dtype=np.bool_)
    undone[:, 6] = True
    losses = predict(law, rates, POINTS, undone=undone)[0]
    back = [
        replace(runs[row], rates=rates[row], val_loss=losses[row], undone=undone[row])
        for row in range(16)
    ]
    found = fit_surrogate([*runs, *back], preset("tiny")).constants
    assert found.damage_rate == pytest.approx(law.damage_rate, rel=0.5)
    # Without `undone` the fit takes the restored loss for the effect of such rates.
    unaware = [replace(run, undone=None) for run in back]
    found = fit_surrogate([*runs, *unaware], preset("tiny")).constants
    assert found.damage_rate > 10 * law.damage_rate


def test_what_a_law_goes_through_is_what_it_predicts_of_the_record() -> None:
    law = make_law()  # without noise, and every seed alike
    rates = [1e-3, 4e-3]
    runs = record_runs(
        Scripted, law.training.corpus, [3, 4], rates, trainer=law, scale="tiny"
    )
    for run, rate in zip(runs, rates, strict=True):
        assert run.undone is not None
        undone = np.flatnonzero(run.undone)
        assert undone.tolist() == [3, 5, 6]  # the chunks that the third ... began
        assert run.iterations[:4].tolist() == [0, 10, 20, 30]
        warm = run.rates[50:60]  # beyond the warm-up: keep, double, then three thirds
        assert warm == pytest.approx(rate * 2 / 27)
        assert run.rates[-1] < 0.1 * run.rates[300]  # the base schedule's cooldown
    assert final_errors(law, runs) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_diverged_run_is_recorded_up_to_its_end() -> None:
    law = make_law(divergence_rate=5e-3)
    (run,) = record_runs(
        Scripted, law.training.corpus, [0], [4e-3], trainer=law, scale="tiny"
    )
    alive = np.isfinite(run.val_loss)
    assert run.undone is not None
    assert alive[0]
    assert not alive[-1]
    assert (np.diff(alive.astype(int)) <= 0).all()
    assert len(run.rates) == 600
    assert not run.undone[~alive].any()
    assert len(final_errors(law, [run])) == 0


def test_undone_chunks_survive_the_file_and_have_to_fit(tmp_path: Path) -> None:
    law = make_law()
    rates = [1e-3, 2e-3]
    runs = record_runs(
        Scripted, law.training.corpus, [0, 1], rates, trainer=law, scale="tiny"
    )
    save_runs(tmp_path / "runs.npz", runs)
    for ours, theirs in zip(load_runs(tmp_path / "runs.npz"), runs, strict=True):
        assert ours.undone.tolist() == theirs.undone.tolist()  # type: ignore[union-attr]
        assert ours.undone.dtype == np.bool_  # type: ignore[union-attr]
    one = runs[0]
    with pytest.raises(ValueError, match="undone of 'short' must have"):
        RecordedRun(
            name="short",
            seed=0,
            rates=one.rates,
            iterations=one.iterations,
            val_loss=one.val_loss,
            train_loss=one.train_loss,
            grad_norm=one.grad_norm,
            update_size=one.update_size,
            undone=np.zeros(3, dtype=np.bool_),
        )


def test_a_family_runs_on_the_laws_it_is_given(tmp_path: Path) -> None:
    own = make_law(initial_loss=5.0)  # of no package
    corpus = own.training.corpus
    own.save(tmp_path / "own.json")
    files = packaged_laws()
    laws = {corpus: own, "shakespeare": str(files["shakespeare", "tiny"])}
    how: dict[str, Any] = {"scale": "tiny", "family": {"corpora": list(laws)}}
    given = gym.make("LRTuningEnv-v0", trainer=laws, **how)
    laws[corpus] = str(tmp_path / "own.json")
    from_file = gym.make("LRTuningEnv-v0", trainer=laws, **how)
    packaged = gym.make("LRTuningEnv-v0", trainer="surrogate", **how)
    for name in (corpus, "shakespeare"):
        steps = []
        for env in (given, from_file, packaged):
            env.reset(seed=1, options={"instance": {"corpus": name}})
            steps.append(env.step(2)[4]["val_loss"])
        assert steps[0] == steps[1]
        assert (steps[0] == steps[2]) == (name == "shakespeare")


@pytest.mark.parametrize(
    ("laws", "error", "message"),
    [
        ({}, ValueError, "no law for corpus 'markov'; it has laws for none"),
        ({"markov": "real"}, TypeError, r"trainer\['markov'\] must be a LossLaw"),
        ({"markov": "away.json"}, FileNotFoundError, "away.json"),
        ("real.json", ValueError, "a mapping from each corpus to its law"),
    ],
)
def test_wrong_laws_of_a_family_are_refused(
    laws: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gym.make(
            "LRTuningEnv-v0",
            trainer=laws,
            scale="tiny",
            family={"corpora": ["markov"]},
        )


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"rounds": -1}, ValueError, "--rounds must be at least 0, got -1"),
        ({"rollouts": 0}, ValueError, "--rollouts must be at least 1, got 0"),
        ({"rounds": 1}, FileNotFoundError, "-fit.npz, which .*surrogate.fitting"),
    ],
)
def test_what_fine_tuning_lacks_is_said_before_anything_is_learned(
    tmp_path: Path, wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(error, match=message):
        train_controller.main(Args(fitted_on=tmp_path, out=out, **wrong))
    assert not out.exists()


@pytest.mark.slow
def test_fine_tuning_runs_for_real_fits_again_and_learns_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One corpus, and enough of its recorded runs for a fit of seconds.
    monkeypatch.setattr(
        train_controller, "packaged_laws", lambda: {("markov", "tiny"): Path()}
    )
    asked: list[Any] = []

    def simulated(args: Args, laws: Any = None, **changes: Any) -> Any:
        asked.append(laws)
        return make_simulated(args, laws, **changes)

    make_simulated = train_controller.simulated
    monkeypatch.setattr(train_controller, "simulated", simulated)
    every = load_runs(RECORDED / "markov-tiny-fit.npz")
    save_runs(tmp_path / "markov-tiny-fit.npz", every[:9])
    out = tmp_path / "out"
    train_controller.main(
        Args(
            episodes=64,
            num_envs=32,
            checks=2,
            rounds=1,
            rollouts=1,
            round_episodes=32,
            fitted_on=tmp_path,
            out=out,
        )
    )
    report = json.loads((out / "report.json").read_text())
    (seen,) = report["rounds"]
    assert set(seen["markov"]) == {
        "final_val_loss",
        "error_before_refitting",
        "error_after_refitting",
    }
    assert all(len(values) == 1 for values in seen["markov"].values())
    assert report["simulated_episodes"] >= 96
    assert "before fine-tuning" in report["final_val_loss"]["surrogate"]
    before, after = (
        load_controller(out / name)
        for name in ("policy-0.safetensors", "policy.safetensors")
    )
    weights = [policy.head.weights[0] for policy in (before, after)]  # type: ignore[attr-defined]
    assert not np.array_equal(*weights)
    path = out / "laws" / "markov-tiny.json"
    assert asked == [None, {"markov": str(path)}]  # it learned on, on the new law
    assert load_law(path).runs == 9 + 1
