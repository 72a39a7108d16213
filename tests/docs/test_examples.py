"""The examples run, shortened, with the real libraries."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples import huggingface_trainer, lightning_module, plain_pytorch

ROOT = Path(plain_pytorch.__file__).parents[1]
# Lightning warns about the machine and uses something that torch deprecates.
LIGHTNING = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "main",
    [
        plain_pytorch.main,
        huggingface_trainer.main,
        pytest.param(lightning_module.main, marks=LIGHTNING),
    ],
)
def test_an_example_reduces_the_loss(
    main: Callable[[list[str]], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LR_GYM_DATA", raising=False)  # uses the embedded text
    assert main(["--iterations", "80"]) < math.log(32) - 0.3, "32 symbols"


@pytest.mark.slow
def test_an_example_runs_as_a_script() -> None:
    done = subprocess.run(
        [sys.executable, "examples/plain_pytorch.py", "--iterations", "20"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LR_GYM_DATA": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "final val_loss" in done.stdout
