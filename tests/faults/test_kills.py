"""A process is killed at any moment, and the same command is started again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lr_gym import files
from lr_gym.files import write_bytes
from tests.helpers.commands import COMMANDS, finish, results, start

KILLS = 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_20_moments_a_command_gives_the_same_bytes(
    kind: str, tmp_path: Path
) -> None:
    started = time.perf_counter()
    assert finish(start(kind, tmp_path / "undisturbed"))[0] == 0
    longest = time.perf_counter() - started
    expected = results(tmp_path / "undisturbed")
    moments = random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        out = tmp_path / f"run-{runs}"
        undisturbed = not out.exists()
        started = time.perf_counter()
        process = start(kind, out)
        try:
            process.wait(timeout=moments.uniform(0.1, 1.0) * longest)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        finish(process)
        if process.returncode == 0:
            assert results(out) == expected
            runs += 1
            if undisturbed:  # the machine has become faster, or less busy
                longest = min(longest, time.perf_counter() - started)
    assert finish(start(kind, out))[0] == 0
    assert results(out) == expected


# The module is loaded alone: importing the package takes seconds.
WRITER = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
"""
KILLED_AT = {
    "begun": "files.tempfile.TemporaryDirectory.__enter__ = kill",
    "half": "Path.write_bytes = half",
    "written": "Path.replace = kill",
}
KILLED = """
def kill(*_):
    os.kill(os.getpid(), 9)
def half(path, content):
    path.open("wb", buffering=0).write(content[:2])
    kill()
"""


def run_writer(script: str, path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER + script, str(files.__file__), str(path)]
    return subprocess.Popen([*command, *arguments])


@pytest.mark.parametrize("moment", KILLED_AT)
def test_a_killed_write_changes_nothing_and_the_next_one_cleans_up(
    moment: str, tmp_path: Path
) -> None:
    path = tmp_path / ("n" * 255)
    write_bytes(path, b"old")
    (tmp_path / ".lr_gym-other").mkdir()  # not of this file
    script = f"{KILLED}{KILLED_AT[moment]}\nfiles.write_bytes(sys.argv[2], b'half')"
    assert run_writer(script, path).wait() == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, ".lr_gym-other"}


def test_two_writers_of_one_file_do_not_hinder_each_other(tmp_path: Path) -> None:
    """Each takes the other's temporary file for a leftover now and then."""
    script = "for _ in range(200): files.write_bytes(sys.argv[2], sys.argv[3].encode())"
    path = tmp_path / "file"
    contents = ("a" * 5_000, "b" * 5_000)
    writers = [run_writer(script, path, content) for content in contents]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert path.read_text() in contents
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_write_whose_temporary_file_is_removed_starts_again(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., object] = getattr(Path, step)
    removed: list[Path] = []

    def after_removal(path: Path, *arguments: object) -> object:
        if not removed:
            removed.append(path)
            shutil.rmtree(path.parent)
        return original(path, *arguments)

    monkeypatch.setattr(Path, step, after_removal)
    write_bytes(tmp_path / "file", b"content")
    assert removed
    assert (tmp_path / "file").read_bytes() == b"content"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
