"""A real file system of a few kilobytes, in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
