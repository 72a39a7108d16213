"""The agents' scripts: their options, their output, what they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

from agents import baselines, deep_rl, tabular_q
from agents.agent import (
    make_env,
)
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
