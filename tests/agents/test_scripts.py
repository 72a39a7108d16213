"""The agents' scripts: their options, their output, what they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

from agents import baselines, deep_rl, tabular_q
from agents.agent import make_env, run_episode
from benchmarks.comparison.methods import find_method
from tests.helpers.small import SMALL

ROOT = Path(tabular_q.__file__).parents[1]


@pytest.mark.parametrize(
    "script",
    [
        "agents/tabular_q",
        "agents/deep_rl",
        "agents/baselines",
        "benchmarks/compare_agents",
    ],
)
def test_scripts_explain_themselves(script: str) -> None:
    result = subprocess.run(
        [sys.executable, f"{script}.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for option in ("--env", "--scale", "--seed"):
        assert option in result.stdout


@pytest.mark.parametrize("env", ["enwik8", "text8", "shakespeare", "notes.txt"])
def test_the_q_learning_script_takes_every_corpus(env: str) -> None:
    args = tyro.cli(tabular_q.Args, args=["--env", env])
    assert (args.env, args.scale, args.protocol) == (env, "auto", "improved")


def test_the_baseline_script_prints_a_line_per_decision(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        make = make_env
        patch.setattr(
            baselines, "script_env", lambda name, **given: make(name, **(given | SMALL))
        )
        baselines.main(baselines.Args(agent="plateau", scale="tiny"))
        with pytest.raises(SystemExit, match="--agent must be one of"):
            baselines.main(baselines.Args(agent="platau"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6  # the start, four decisions, the return
    assert lines[-1].startswith("return ")


@pytest.mark.parametrize("main", [tabular_q, deep_rl])
def test_scripts_refuse_zero_episodes(main: Any) -> None:
    if main is deep_rl:
        with pytest.raises(SystemExit, match="--num-envs must be at least 1"):
            main.main(main.Args(num_envs=0))
    with pytest.raises(SystemExit, match="--episodes must be at least 1"):
        main.main(main.Args(episodes=0))


def test_the_baseline_script_suggests_a_name() -> None:
    with pytest.raises(SystemExit, match="did you mean 'plateau'"):
        baselines.main(baselines.Args(agent="platau"))


@pytest.mark.parametrize(("num_envs", "first"), [(1, 2), (3, 3)])
def test_the_deep_script_says_what_it_does(
    num_envs: int,
    first: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = make_env
    monkeypatch.setattr(
        deep_rl, "script_env", lambda name, **given: make(name, **(given | SMALL))
    )
    out = tmp_path / "model.zip"
    deep_rl.main(deep_rl.Args(scale="tiny", episodes=3, num_envs=num_envs, out=out))
    printed = capsys.readouterr()
    line = printed.out.splitlines()[0]
    assert line == (
        f"learning from 3 runs of 4 decisions, {num_envs} at a time; the agent is "
        f"updated, and reported, after every {first} runs"
    )
    assert "decision" in printed.err  # a bar counts the decisions
    assert f"model: {out}" in printed.out
    # The file that the script names is an agent of the comparison.
    method = find_method(str(out))
    assert not method.learns
    env = make("markov", scale="tiny", **method.make(0).settings, **SMALL)
    loaded = run_episode(env, method.make(0), seed=1_000_000)
    rates = " ".join(f"{info['learning_rate']:.1e}" for info in loaded)
    assert rates in printed.out


@pytest.mark.parametrize("algo", sorted(deep_rl.ALGORITHMS))
def test_a_saved_model_acts_as_the_trained_one(algo: str, tmp_path: Path) -> None:
    agent = deep_rl.DeepAgent(0, algo=algo)
    env = make_env("markov", scale="tiny", **agent.settings, **SMALL)
    agent.train(env, 2)
    agent.model.save(tmp_path / "model.zip")
    loaded = deep_rl.SavedModel(tmp_path / "model.zip")
    one, two = (run_episode(env, a, seed=5) for a in (agent, loaded))
    assert [info["val_loss"] for info in one] == [info["val_loss"] for info in two]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with pytest.raises(ValueError, match="cannot be loaded"):
        find_method(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be loaded"):
        find_method(str(path))
    agent = deep_rl.DeepAgent(0, algo="ppo")
    keywords = {**agent.settings, **SMALL, "features": ("val_loss", "progress")}
    agent.train(make_env("markov", scale="tiny", **keywords), 1)
    agent.model.save(path)
    with pytest.raises(ValueError, match="observations of 2 features"):
        find_method(str(path))


def test_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="'lineer' is unknown; did you mean 'linear'"):
        find_method("lineer")
