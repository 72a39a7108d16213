"""Commands that write a folder of results, in small, and what must be the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.paths import ROOT
from tests.helpers.small import SMALL

COMPARISON = ["benchmarks/compare_agents.py", "--env", "markov"]
COMPARISON += ["--agents", "constant", "linear", "q_paper", "q_improved"]
COMPARISON += ["--seeds", "2", "--tune-seeds", "1", "--learners", "1"]
COMPARISON += ["--peaks", "0.5", "1.0", "2.0", "--workers", "2"]
COMPARISON += ["--settings", json.dumps(SMALL)]
# fitting.py has the whole runs of a scale: this makes them short and few.
FIT = """
import sys
from pathlib import Path
from benchmarks.surrogate import fitting
from tests.helpers.small import small_config
plan = fitting.law_runs.fitting_plan
fitting.law_runs.fitting_plan = lambda config: plan(config)[:8]
fitting.preset = lambda *_: small_config(max_iters=40, eval_interval=10, warmup_iters=4)
fitting.main(fitting.Args(env="markov", size=2, out=Path(sys.argv[2])))
"""
CONTROLLER = ["agents/train_controller.py", "--episodes", "16", "--num-envs", "16"]
CONTROLLER += ["--checks", "2"]
COMMANDS = {"comparison": COMPARISON, "fit": ["-c", FIT], "controller": CONTROLLER}
# Times, and where and by which command a result was made.
LEFT_OUT = ("seconds", "train_seconds", "inference_tokens_per_second", "provenance")
# The report shows times and its command; timings.csv holds nothing but times.
FILES_LEFT_OUT = ("report.html", "timings.csv")


def start(kind: str, out: Path) -> subprocess.Popen[str]:
    """Start the command of `COMMANDS` with the output folder `out`."""
    return subprocess.Popen(
        [sys.executable, *COMMANDS[kind], "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process; return its status and what it said on stderr."""
    _, errors = process.communicate()
    return process.returncode, errors


def results(out: Path) -> dict[str, bytes]:
    """Return name and bytes of every file in `out`, hidden ones too.

    Of a JSON file the keys in `LEFT_OUT` are left out. Of the files in
    `FILES_LEFT_OUT` there is only the name.
    """
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path.name in FILES_LEFT_OUT:
            content = b""
        elif path.suffix == ".json":
            content = json.dumps(without(json.loads(path.read_bytes()))).encode()
        else:
            content = path.read_bytes()
        found[str(path.relative_to(out))] = content
    return found


def without(value: Any) -> Any:
    """Return a JSON value without the keys in `LEFT_OUT`."""
    if isinstance(value, list):
        return [without(entry) for entry in value]
    if isinstance(value, dict):
        return {k: without(v) for k, v in value.items() if k not in LEFT_OUT}
    return value
