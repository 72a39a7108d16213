"""Scripts print to consoles that lack characters of their output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents import tabular_q
from lr_gym.envs.rendering import ASCII_BARS, BARS, render_ansi
from tests.helpers.small import SMALL

ROOT = Path(tabular_q.__file__).parents[1]
ENCODINGS = ("cp437", pytest.param("cp1252", marks=pytest.mark.slow))


def run_script(encoding: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_baseline_script_prints(encoding: str) -> None:
    output = run_script(encoding, "agents/baselines.py", "--scale", "tiny")
    lines = output.splitlines()
    assert lines[-1].startswith("return ")
    assert lines[-2].endswith(ASCII_BARS[0])
    assert "?" not in output


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_comparison_prints_its_result(encoding: str, tmp_path: Path) -> None:
    text = tmp_path / "текст.txt"  # no character of these encodings
    text.write_text("the quick brown fox jumps over the lazy dog. " * 100)
    protocol = [
        *("--seeds", "2", "--tune-seeds", "1", "--workers", "1"),
        *("--peaks", "0.5", "1", "2"),
    ]
    output = run_script(
        encoding,
        "benchmarks/compare_agents.py",
        *("--env", str(text), "--agents", "linear", "wsd", *protocol),
        *("--settings", json.dumps(SMALL), "--out", str(tmp_path / "out")),
    )
    assert "tasks: ????? tiny" in output
    assert "report: " in output


def test_bars_are_blocks_where_the_console_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = [
        {
            "iteration": k,
            "val_loss": loss,
            "best_val_loss": loss,
            "train_loss": loss,
            "learning_rate": 1e-3,
            "diverged": False,
        }
        for k, loss in enumerate((2.0, 1.0))
    ]

    class Console:
        encoding: str | None

    monkeypatch.setattr(sys, "stdout", Console)
    for encoding, bars in (
        ("utf-8", BARS),
        (None, BARS),  # a stream of text, like a notebook's
        ("cp437", ASCII_BARS),
        ("ascii", ASCII_BARS),
    ):
        Console.encoding = encoding
        assert render_ansi(history, 10).endswith(bars[-1] + bars[0])
