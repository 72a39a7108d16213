"""No local texts, and a server in place of the published addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.published import TEXT, Server, archive, publish


@pytest.fixture(name="no_data", autouse=True)
def fixture_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide an empty cache and no local texts."""
    monkeypatch.delenv("LR_GYM_DATA", raising=False)
    monkeypatch.delenv("LR_GYM_ALLOW_PARTIAL", raising=False)
    monkeypatch.setenv("LR_GYM_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(name="server")
def fixture_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A small enwik8 in place of the published one."""
    download = archive({"enwik8": TEXT})
    server = Server(download)
    publish(monkeypatch, server.url, download)
    yield server
    server.stop()
