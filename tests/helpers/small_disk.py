"""Little room: a quota for this process, and a file system of a few kilobytes."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def quota(size: int = 200) -> Iterator[None]:
    """Limit the size of files that this process writes, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@cache
def mount_command() -> tuple[str, ...]:
    """Return the words that start a command that may mount; () if there are none."""
    for words in (("unshare", "-rm"), ("sudo", "-n", "unshare", "-m")):
        if shutil.which(words[0]) is None:
            continue
        attempt = [*words, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(attempt, capture_output=True, check=False).returncode == 0:
            return words
    return ()


def on_small_disk(script: str, mount: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script that can mount a file system on the folder `mount`."""
    mount.mkdir()
    return subprocess.run(
        [*mount_command(), "sh", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
