"""The clock jumps by a day, forwards and backwards, while something runs."""

from __future__ import annotations

import io
import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.comparison.entry import Args, main
from lr_gym.progress import ProgressBar
from tests.helpers.commands import results
from tests.helpers.small import SMALL, small_env

DAY = 86_400.0


def jumping(clock: Callable[[], float], *, backwards: bool) -> Callable[[], float]:
    """Return a clock that jumps by a day at every third reading, there and back."""
    first = -DAY if backwards else DAY
    jumps = itertools.cycle([0.0, 0.0, 0.0, first, first, first])
    return lambda: clock() + next(jumps)


def suspended(clock: Callable[[], float]) -> Callable[[], float]:
    """Return a clock that a day passes on at every third reading, never back."""
    readings = itertools.count()
    return lambda: clock() + DAY * (next(readings) // 3)


@pytest.fixture(name="clocks", params=["wall", "all"])
def fixture_clocks(
    request: pytest.FixtureRequest,
) -> Callable[[pytest.MonkeyPatch, bool], None]:
    """Provide a function that makes the wall clock, or every clock, jump.

    Monotonic clocks jump forwards alone, as when a machine sleeps.
    """

    def patch(monkeypatch: pytest.MonkeyPatch, backwards: bool) -> None:
        wall = jumping(time.time, backwards=backwards)
        monkeypatch.setattr(time, "time", wall)
        monkeypatch.setattr("tqdm.std.time", wall)
        if request.param == "all":
            for name in ("monotonic", "perf_counter"):
                monkeypatch.setattr(time, name, suspended(getattr(time, name)))

    return patch


def compare(out: Path) -> None:
    main(
        Args(
            agents=("constant", "linear"),
            seeds=1,
            tune_seeds=1,
            peaks=(1.0, 2.0),
            workers=1,
            settings=json.dumps(SMALL),
            out=out,
        )
    )


@pytest.fixture(name="undisturbed", scope="module")
def fixture_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison."""
    out = tmp_path_factory.mktemp("undisturbed")
    compare(out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True])
def test_a_comparison_gives_the_same_bytes(
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clocks: Callable[[pytest.MonkeyPatch, bool], None],
    backwards: bool,
) -> None:
    with monkeypatch.context() as patch:
        clocks(patch, backwards)
        compare(tmp_path)
    shown = capsys.readouterr().err
    assert re.search(r"(\d+) jobs done, \1 planned so far, ", shown)
    assert not re.search(r"-\d", shown)
    assert results(tmp_path) == results(undisturbed)


def shown_by_bar(step: Callable[[], Any]) -> list[str]:
    """Return what a bar of ten steps shows, one entry per step."""
    stream = io.StringIO()
    with ProgressBar(total=10, file=stream, mininterval=0.0, miniters=1) as bar:
        for _ in range(10):
            step()
            bar.update(1)
    return stream.getvalue().split("\r")[1:]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_bar_shows_time_that_passed_and_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    wall = jumping(time.time, backwards=backwards)
    monkeypatch.setattr("tqdm.std.time", wall)
    monkeypatch.setattr(time, "time", wall)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def step() -> None:
        now[0] += 1.0

    lines = shown_by_bar(step)
    assert "| 4/10 [00:04<00:06,  1.00it/s]" in lines[4]
    assert "| 10/10 [00:10<00:00,  1.00it/s]" in lines[-1]


def test_an_episode_has_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clocks: Callable[[pytest.MonkeyPatch, bool], None],
) -> None:
    def losses() -> list[float]:
        env = small_env(progress_bar=True)
        env.reset(seed=0)
        return [env.step(1)[4]["val_loss"] for _ in range(4)]

    expected = losses()
    clocks(monkeypatch, True)
    assert losses() == expected
    assert not re.search(r"-\d", capsys.readouterr().err)
