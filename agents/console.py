"""The console that a script prints to."""

from __future__ import annotations

import io
import sys


def replace_unprintable() -> None:
    """Print ``?`` for a character that the console lacks, instead of raising."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
