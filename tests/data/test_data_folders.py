"""The folders of `LR_GYM_CACHE` and `LR_GYM_DATA`, also those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from lr_gym import load_corpus
from lr_gym.data import corpora
from tests.helpers.published import TEXT, Server, temporary_files


def test_a_tilde_in_the_cache_and_in_the_data_folder(
    server: Server, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("home", "work"):
        (no_data / folder).mkdir()
    monkeypatch.setenv("HOME", str(no_data / "home"))
    monkeypatch.chdir(no_data / "work")
    monkeypatch.setenv("LR_GYM_CACHE", "~/cache")
    for _ in range(2):
        assert load_corpus("enwik8").complete
        corpora._load_file.cache_clear()
    assert server.requests == 1
    assert temporary_files(no_data / "home" / "cache") == ["enwik8"]
    monkeypatch.setenv("LR_GYM_CACHE", str(no_data / "empty"))
    monkeypatch.setenv("LR_GYM_DATA", "~/cache")
    assert load_corpus("enwik8").complete
    assert list((no_data / "work").iterdir()) == []


def no_locks(*_: object, **__: object) -> None:
    raise NotImplementedError("no locks")


def read_only(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    "problem", ["a file", "inside a file", "no folder", "locks", "read-only", "hidden"]
)
def test_a_cache_that_cannot_be_written_says_what_to_do(
    server: Server, no_data: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    (no_data / "file").touch()
    folder = {
        "a file": no_data / "file",
        "inside a file": no_data / "file" / "cache",
        "no folder": Path("/proc/cache"),  # as with HOME=/
    }.get(problem, no_data / "cache")
    monkeypatch.setenv("LR_GYM_CACHE", str(folder))
    if problem == "locks":
        monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    if problem == "read-only":
        monkeypatch.setattr("lr_gym.data.downloads.write_bytes", read_only)
    if problem == "hidden":
        monkeypatch.setattr(Path, "is_file", read_only)
    with pytest.raises(FileNotFoundError) as caught:
        load_corpus("enwik8")
    for part in (
        f"the cache folder {folder} cannot be used",
        "Set LR_GYM_CACHE to another folder",
        server.url,
        "LR_GYM_DATA",
        "corpus='markov'",
    ):
        assert part in str(caught.value)


def test_a_data_folder_that_cannot_be_read_is_named(
    no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_data / "enwik8").write_bytes(TEXT)
    monkeypatch.setenv("LR_GYM_DATA", str(no_data))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", read_only)
        with pytest.raises(ValueError, match=r"'enwik8' cannot be read: .*Permission"):
            load_corpus("enwik8")
    monkeypatch.setattr(Path, "is_dir", read_only)
    with pytest.raises(ValueError, match=r"LR_GYM_DATA .*Permission denied"):
        load_corpus("enwik8")
