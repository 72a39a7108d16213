"""Settings of every test run: a temporary cache, and skips that fail a run in CI."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from tests.helpers.small_disk import mount_command


def pytest_configure(config: pytest.Config) -> None:
    """Give this process an empty cache and one thread, its subprocesses too.

    Each worker of pytest-xdist calls this, and so has a cache of its own.
    """
    cache = tempfile.TemporaryDirectory(prefix="lr_gym_cache_")
    config.add_cleanup(cache.cleanup)
    environment = pytest.MonkeyPatch()
    environment.setenv("LR_GYM_CACHE", cache.name)
    # The models are too small for a second thread, and workers need the other cores.
    environment.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    config.add_cleanup(environment.undo)


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Skip tests whose marker names something that this machine lacks."""
    marked = {
        marker: [item for item in items if marker in item.keywords]
        for marker in ("real_text", "mount")
    }
    folder = os.environ.get("LR_GYM_DATA")
    if not folder or not (Path(folder) / "tinyshakespeare.txt").is_file():
        skip = pytest.mark.skip(reason="no tinyshakespeare.txt in LR_GYM_DATA")
        for item in marked["real_text"]:
            item.add_marker(skip)
    if marked["mount"] and not mount_command():
        skip = pytest.mark.skip(reason="this user may not mount a file system")
        for item in marked["mount"]:
            item.add_marker(skip)


def _forbidden_skips(config: pytest.Config) -> int:
    """Return the number of skipped tests and modules if skips are forbidden, else 0."""
    if os.environ.get("LR_GYM_FORBID_SKIPS") != "1":
        return 0
    # With pytest-xdist only the controlling process has a reporter: it sees all skips.
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter else 0


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that passes but has forbidden skips."""
    if exitstatus == pytest.ExitCode.OK and _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Explain the failure above pytest's last line."""
    if skips := _forbidden_skips(config):
        terminalreporter.section("skips are forbidden", red=True)
        terminalreporter.write_line(
            f"{skips} skipped while LR_GYM_FORBID_SKIPS=1: this run counts as failed. "
            "Install or set what the skipped tests need (-rs lists it)."
        )
