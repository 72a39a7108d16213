"""What every test runs under: a cache of its own, and skips that cannot hide in CI."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Point the cache at a throw-away folder, before any module of lr_gym is read."""
    cache = tempfile.TemporaryDirectory(prefix="lr_gym_cache_")
    environment = pytest.MonkeyPatch()
    environment.setenv("LR_GYM_CACHE", cache.name)
    config.add_cleanup(environment.undo)
    # The models here are so small that a second thread only waits for the first.
    torch.set_num_threads(1)
    config.add_cleanup(cache.cleanup)


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Skip the tests marked `real_text` where the text is missing."""
    folder = os.environ.get("LR_GYM_DATA")
    if folder and (Path(folder) / "tinyshakespeare.txt").is_file():
        return
    skip = pytest.mark.skip(reason="no tinyshakespeare.txt in LR_GYM_DATA")
    for item in items:
        if "real_text" in item.keywords:
            item.add_marker(skip)


def _forbidden_skips(config: pytest.Config) -> int:
    """Return how many tests or modules were skipped although no skip is allowed."""
    if os.environ.get("LR_GYM_FORBID_SKIPS") != "1":
        return 0
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter else 0


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that would have passed but for forbidden skips."""
    if exitstatus == pytest.ExitCode.OK and _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say why, above pytest's own last line."""
    if skips := _forbidden_skips(config):
        terminalreporter.section("skips are forbidden", red=True)
        terminalreporter.write_line(
            f"{skips} skipped while LR_GYM_FORBID_SKIPS=1: this run counts as failed. "
            "Provide what the tests need (-rs shows it)."
        )
