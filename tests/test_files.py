"""Writing files as a user's other programs do, and the folders users name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lr_gym
from lr_gym import files
from lr_gym.controllers.policies.policy_file import read_provenance, save_policy
from lr_gym.controllers.snapshots import load_state, save_state
from lr_gym.files import (
    cache_folder,
    data_folder,
    read_json_object,
    write_bytes,
    write_text,
)
from lr_gym.surrogate.law_files import packaged_laws
from lr_gym.surrogate.runs import CURVES, RecordedRun, load_runs, save_runs


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(name="set_umask")
def fixture_set_umask() -> Iterator[Callable[[int], int]]:
    """Provide `os.umask`, undone after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


# ---------------------------------------------------------------------------- writing


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_respects_the_umask(
    tmp_path: Path, set_umask: Callable[[int], int], mask: int, expected: int
) -> None:
    set_umask(mask)
    write_text(tmp_path / "folder" / "new", "text")
    assert mode(tmp_path / "folder" / "new") == expected


@pytest.mark.parametrize("before", [0o600, 0o664, 0o755])
def test_an_existing_file_keeps_its_mode(
    tmp_path: Path, set_umask: Callable[[int], int], before: int
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(before)
    set_umask(0o077)
    write_text(path, "new")
    assert (path.read_text(), mode(path)) == ("new", before)


def test_a_write_protected_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may write everything
        monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"file is write-protected"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "target"
    link, chain = tmp_path / "link", tmp_path / "chain"
    link.symlink_to("elsewhere/target")  # the target does not exist yet
    chain.symlink_to(link)
    for path, text in ((link, "first"), (chain, "second")):
        write_text(path, text)
        assert target.read_text() == text
        assert path.is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").is_symlink()


def test_a_pipe_a_device_and_a_folder_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", Path(os.devnull), tmp_path / "folder"):
        with pytest.raises(OSError, match=f"{path} is not a regular file"):
            write_bytes(path, b"content")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_failed_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


def test_recorded_runs_are_written_through_a_link(tmp_path: Path) -> None:
    curves: dict[str, Any] = {name: np.ones(3) for name in ("rates", *CURVES)}
    run = RecordedRun(name="run", seed=0, iterations=np.arange(3), **curves)
    (tmp_path / "link.npz").symlink_to("target.npz")
    save_runs(tmp_path / "link.npz", [run])
    assert (tmp_path / "link.npz").is_symlink()
    assert load_runs(tmp_path / "target.npz")[0].name == "run"


# ------------------------------------------------------------------------------ tilde


@pytest.fixture(name="home")
def fixture_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a home folder, and work in another one."""
    home = tmp_path / "home"
    for folder in (home, tmp_path / "work"):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path / "work")
    return home


def test_a_tilde_is_the_home_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LR_GYM_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    monkeypatch.setenv("LR_GYM_DATA", "~")
    assert data_folder() == home
    write_text("~/folder/x.csv", "text")
    assert (home / "folder" / "x.csv").read_text() == "text"
    (home / "x.txt").write_text("roses are red\n" * 40)
    assert lr_gym.load_corpus("~/x.txt").vocab_size == 8
    assert list(Path().iterdir()) == []


def test_what_is_saved_under_a_tilde_is_read_from_there(home: Path) -> None:
    policy: Any = lr_gym.load_controller("default")
    save_policy(policy, "~/policy")
    assert type(lr_gym.load_controller("~/policy")) is type(policy)
    assert read_provenance("~/policy") == {}
    save_state({"a": 1}, "~/state")
    assert load_state("~/state") == {"a": 1}
    law = lr_gym.load_law(next(iter(packaged_laws().values())))
    law.save("~/law.json")
    assert lr_gym.load_law("~/law.json") == law
    assert {path.name for path in home.iterdir()} == {"policy", "state", "law.json"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "it is not JSON: Expecting"),
        (b"\xff", "it is not JSON: .* can't decode"),
        (b"[" * 100_000, "it is not JSON: maximum recursion depth"),
        (b"[]", "it holds a JSON list; repair or delete it"),
    ],
    ids=["cut", "bytes", "deep", "list"],
)
def test_what_is_no_json_object_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"x\.json must hold a JSON object: {message}"
    ):
        read_json_object(path)


def test_a_device_and_a_large_file_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="/dev/zero is not a regular file"):
        files.read_file("/dev/zero")
    monkeypatch.setattr(files, "MAX_READ_BYTES", 3)
    (tmp_path / "x").write_bytes(b"1234")
    with pytest.raises(ValueError, match="more than 3 bytes"):
        files.read_file(tmp_path / "x")


@pytest.mark.parametrize("path", ["a\0b", 3, b"x"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="a path must"):
        files.user_path(path)


def test_an_unknown_home_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no home is known
    with pytest.raises(ValueError, match=r"'~/x'.* home folder .*\./~/x"):
        write_text("~/x", "text")
    monkeypatch.setenv("LR_GYM_CACHE", "~/cache")
    with pytest.raises(ValueError, match=r"LR_GYM_CACHE .*'~/cache'"):
        cache_folder()
    monkeypatch.delenv("LR_GYM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ValueError, match=r"set LR_GYM_CACHE .* or LR_GYM_DATA"):
        cache_folder()


def test_the_cache_folder_must_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LR_GYM_CACHE", str(tmp_path / "cache"))
    assert files.writable_cache_folder() == tmp_path / "cache"
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "cache", Path("/proc/cache")):
        monkeypatch.setenv("LR_GYM_CACHE", str(folder))
        with pytest.raises(OSError, match=f"{folder} .* set LR_GYM_CACHE"):
            files.writable_cache_folder()
    assert list((tmp_path / "cache").iterdir()) == []
