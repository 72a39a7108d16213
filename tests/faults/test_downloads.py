"""A download into the cache meets a full disk, or its process is killed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lr_gym import load_corpus
from lr_gym.data import corpora, downloads
from tests.helpers.small_disk import quota

TEXT = bytes(range(32, 127)) * 300  # a stand-in for enwik8


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files of a folder."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(name="cache")
def fixture_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Publish a small enwik8 on the loopback interface; provide an empty cache."""
    archive = tmp_path / "served" / "enwik8.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("enwik8", TEXT)
    handler = functools.partial(QuietHandler, directory=str(archive.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    published = dataclasses.replace(
        downloads.PUBLISHED["enwik8"],
        url=f"http://127.0.0.1:{server.server_port}/enwik8.zip",
        download_hash=f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}",
        text_hash=f"sha256:{hashlib.sha256(TEXT).hexdigest()}",
        size=len(TEXT),
    )
    monkeypatch.setitem(downloads.PUBLISHED, "enwik8", published)
    monkeypatch.setenv("LR_GYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LR_GYM_DATA", raising=False)
    corpora._load_file.cache_clear()
    yield tmp_path / "cache"
    server.shutdown()
    server.server_close()
    corpora._load_file.cache_clear()


def names(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("size", [100, 10_000], ids=["download", "text"])
def test_a_full_disk_leaves_no_half_text_and_the_next_load_downloads(
    cache: Path, size: int
) -> None:
    message = f"the cache folder {cache} cannot be used .*File too large"
    with quota(size), pytest.raises(FileNotFoundError, match=message):
        load_corpus("enwik8")
    assert names(cache) == []
    assert load_corpus("enwik8").complete
    assert (cache / "enwik8").read_bytes() == TEXT
    assert names(cache) == ["enwik8"]


def test_the_leftover_of_a_killed_download_goes_with_the_next_one(cache: Path) -> None:
    leftover = cache / ".enwik8.download" / "tmp"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    assert load_corpus("enwik8").complete
    assert (cache / "enwik8").read_bytes() == TEXT
    assert names(cache) == ["enwik8"]
