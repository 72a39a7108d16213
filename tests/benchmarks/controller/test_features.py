"""The ablation of observations: variants, result and finished learners."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.controller import features
from benchmarks.controller.features import VARIANTS, Args, rows
from lr_gym.mdp.observations import FEATURES


def test_variants_differ_in_what_their_names_say() -> None:
    seen = {
        v.name: set(v.changes.get("features", features.DEFAULT_FEATURES))
        for v in VARIANTS
    }
    assert len(seen) == len(VARIANTS)
    four = seen["the four"]
    assert four <= set(FEATURES)
    for name in four:
        assert seen[f"without {name}"] == four - {name}
    assert seen["with the absolute rate"] - four == {"log_learning_rate"}


@pytest.mark.slow
def test_finished_learners_are_evaluated_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = Args(
        variants=("without progress", "a table"),
        episodes=16,
        seeds=2,
        checks=3,
        jobs=tmp_path / "jobs",
        out=tmp_path / "result.json",
    )
    result = features.main(args)
    assert json.loads(args.out.read_text())["variants"] == result["variants"]
    assert [row["learner"] for row in rows(result)] == [
        "without progress",
        features.LABELS["a table"],
    ]
    for variant in result["variants"].values():
        assert all(gap > -1.0 for gap in variant["above_rule"])
    numbers = [row["seeds"] for row in rows(result)]
    assert numbers == ["2", "1"]  # the table is slow and has one seed
    assert "progress" not in result["variants"]["without progress"]["features"]

    def never(*_: object) -> None:
        raise AssertionError("a finished learner is trained again")

    monkeypatch.setattr(features, "train", never)
    assert features.main(args)["variants"] == result["variants"]


def test_a_learner_of_other_code_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = Args(checks=2, jobs=tmp_path)
    trained: list[str] = []
    monkeypatch.setattr(features, "train", lambda variant, _: trained.append(variant))
    monkeypatch.setattr(features, "final_losses", lambda *_: np.array([2.0, 3.0]))
    first = features.run(VARIANTS[0], 0, args)
    assert features.run(VARIANTS[0], 0, args) == first
    assert len(trained) == 1
    monkeypatch.setattr(features, "code_hash", lambda *_: "changed")
    assert features.run(VARIANTS[0], 0, args)["code"] == "changed"
    assert len(trained) == 2
    assert "is old: other code made it" in capsys.readouterr().out


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"--variants must be of .* got \['all'\]"):
        features.main(Args(variants=("all",)))
