"""The disk is full, or a quota is reached, while a file of any kind is written."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.paths import ROOT
from tests.helpers.small import SMALL
from tests.helpers.small_disk import on_small_disk, quota
from tests.helpers.written_files import KINDS, contents, survive_full_disk

DRAWN = ("report", "picture")  # these take more than a second


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow) if kind in DRAWN else kind
        for kind in KINDS
    ],
)
def test_a_quota_leaves_the_earlier_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    survive_full_disk(kind, tmp_path / "here", tmp_path / "elsewhere", quota)


# ------------------------------------------------------------------ a real file system


FILL = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from tests.helpers.written_files import KINDS, survive_full_disk
disk, elsewhere = map(Path, sys.argv[1:])
time.time = lambda: 1e9
@contextmanager
def full():
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass
    try:
        yield
    finally:
        (disk / "ballast").unlink()
for kind in KINDS:
    survive_full_disk(kind, disk, elsewhere, full)
    print(kind)
"""


@pytest.mark.slow
@pytest.mark.mount
def test_a_full_disk_leaves_the_earlier_file_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    python = shlex.join([sys.executable, "-c", FILL, str(disk), str(tmp_path / "else")])
    result = on_small_disk(f"mount -t tmpfs -o size=4m none {disk} && {python}", disk)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == list(KINDS)


@pytest.mark.slow
@pytest.mark.mount
def test_a_comparison_continues_when_there_is_room_again(tmp_path: Path) -> None:
    def command(out: Path) -> str:
        return shlex.join([
            sys.executable, "benchmarks/compare_agents.py", "--env", "markov",
            *("--agents", "constant", "linear", "--seeds", "2", "--tune-seeds", "1"),
            *("--peaks", "1.0", "2.0", "--workers", "1", "--out", str(out)),
            *("--settings", json.dumps(SMALL)),
        ])  # fmt: skip

    disk, here, copy = tmp_path / "disk", tmp_path / "here", tmp_path / "copy"
    subprocess.run(shlex.split(command(here)), cwd=ROOT, check=True)
    script = f"""
        mount -t tmpfs -o size=24k none {disk} || exit 10
        if {command(disk)}; then exit 11; fi
        ls {disk}/jobs
        mount -o remount,size=8m {disk} || exit 12
        {command(disk)} || exit 13
        cp -r {disk} {copy}
    """
    result = on_small_disk(script, disk)
    assert result.returncode == 0, result.stderr
    assert "error: [Errno 28] No space left on device; the file is unchanged" in (
        result.stderr
    )
    assert "Traceback" not in result.stderr
    kept = [line for line in result.stdout.splitlines() if line.endswith(".json")]
    assert 0 < len(kept) < len(list((here / "jobs").iterdir()))
    ours, theirs = contents(copy), contents(here)
    assert ours.keys() == theirs.keys()
    for name in ("summary.json", "summary.csv", "runs.csv", "curves.svg"):
        assert ours[name] == theirs[name]
