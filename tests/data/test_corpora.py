"""Corpora: exact splits, checked hashes, and downloads that are complete or absent."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import tabular_q
from agents.agent import make_env
from lr_gym import Corpus, load_corpus
from lr_gym.data import corpora, downloads

TEXT = bytes(range(32, 127)) * 300  # a stand-in for enwik8
TEXT_8 = b"anarchism originated as a term of abuse " * 500


@pytest.fixture(name="no_data", autouse=True)
def fixture_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide an empty cache and no local texts."""
    monkeypatch.delenv("LR_GYM_DATA", raising=False)
    monkeypatch.delenv("LR_GYM_ALLOW_PARTIAL", raising=False)
    monkeypatch.setenv("LR_GYM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def archive(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


def damaged(content: bytes) -> bytes:
    """Change one byte of the compressed text itself."""
    return content[:100] + bytes([content[100] ^ 0xFF]) + content[101:]


def encrypted(content: bytes) -> bytes:
    """Mark the member as encrypted, in its header and in the directory."""
    changed = bytearray(content)
    for place in (6, content.index(b"PK\x01\x02") + 8):
        changed[place] |= 1
    return bytes(changed)


def displaced(content: bytes) -> bytes:
    """Say that the directory is longer, so that the archive starts before the file."""
    end = content.index(b"PK\x05\x06")
    size = int.from_bytes(content[end + 12 : end + 16], "little") + 10_000
    return content[: end + 12] + size.to_bytes(4, "little") + content[end + 16 :]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Server:
    """Serves one file on the loopback interface and counts requests."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/enwik8.zip"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(name="server")
def fixture_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A small enwik8 in place of the published one."""
    download = archive({"enwik8": TEXT})
    server = Server(download)
    publish(monkeypatch, server.url, download)
    yield server
    server.stop()


def publish(
    monkeypatch: pytest.MonkeyPatch, url: str, download: bytes, text: bytes = TEXT
) -> None:
    stand_in = dataclasses.replace(
        downloads.PUBLISHED["enwik8"],
        url=url,
        download_hash=sha256(download),
        text_hash=sha256(text),
        size=len(text),
    )
    monkeypatch.setitem(downloads.PUBLISHED, "enwik8", stand_in)


def temporary_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


# --------------------------------------------------------------------------- splits


@pytest.fixture(name="shakespeare")
def fixture_shakespeare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR_GYM_DATA", REAL)


REAL = os.environ.get("LR_GYM_DATA", "")


@pytest.mark.real_text
@pytest.mark.usefixtures("shakespeare")
def test_shakespeare_has_the_papers_validation_split() -> None:
    text = (Path(REAL) / "tinyshakespeare.txt").read_text()
    corpus = load_corpus("shakespeare")
    assert corpus.vocab_size == 65
    assert corpus.complete
    assert (len(corpus.train), len(corpus.test)) == (948_084, 55_770)
    assert len(corpus.val) == 111_540
    assert corpus.decode(corpus.val) == text[int(len(text) * 0.9) :]
    paper = load_corpus("shakespeare", test_fraction=0)
    assert (len(paper.train), len(paper.val), len(paper.test)) == (
        1_003_854,
        111_540,
        0,
    )
    assert paper.decode(paper.train[:100]) == text[:100]


@pytest.mark.real_text
def test_a_prefix_of_text8_needs_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR_GYM_DATA", REAL)
    with pytest.raises(
        ValueError, match=r"not the published text .* LR_GYM_ALLOW_PARTIAL"
    ):
        load_corpus("text8")
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "0")
    with pytest.raises(ValueError, match="not the published text"):
        load_corpus("text8")
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "1")
    with pytest.warns(UserWarning, match="partial copy of text8"):
        corpus = load_corpus("text8")
    assert not corpus.complete
    assert corpus.vocab_size == 27
    assert len(corpus.train) == int(0.9 * 6_877_825)


@given(st.text(min_size=40, max_size=300), st.floats(0, 0.5))
def test_splits_cover_the_text_in_order(text: str, test_fraction: float) -> None:
    text = text.encode("utf-8", "replace").decode() + "ab"
    tokens, vocabulary = corpora._tokenize(text.encode(), "utf-8", "a text")
    for val_last in (True, False):
        splits = corpora._split("a text", tokens, 0.1, test_fraction, val_last=val_last)
        names = ("train", "test", "val") if val_last else ("train", "val", "test")
        joined = np.concatenate([splits[name] for name in names])
        assert "".join(vocabulary[token] for token in joined) == text
    corpus = Corpus("x", vocabulary, tokens, tokens, tokens, True, "", None)
    assert corpus.decode(corpus.encode(text)) == text
    assert list(vocabulary) == sorted(set(text))


def test_more_than_256_symbols_need_wider_tokens(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_text(
        "".join(map(chr, range(0x4E00, 0x4E00 + 400))) * 3, encoding="utf-8"
    )
    corpus = load_corpus(path)
    assert corpus.vocab_size == 400
    assert corpus.train.dtype == np.int32
    with pytest.raises(ValueError, match="'a' is not in corpus"):
        corpus.encode("a")


# ----------------------------------------------------------------------- downloading


def test_the_true_download_path(server: Server, no_data: Path) -> None:
    corpus = load_corpus("enwik8")
    whole = np.concatenate([corpus.train, corpus.val, corpus.test])
    assert corpus.decode(whole).encode("latin-1") == TEXT
    assert [len(s) / len(TEXT) for s in (corpus.train, corpus.val)] == [0.9, 0.05]
    assert temporary_files(no_data / "cache") == ["enwik8"]
    server.stop()
    corpora._load_file.cache_clear()
    assert load_corpus("enwik8").sha256 == corpus.sha256
    assert server.requests == 1


@pytest.mark.usefixtures("server")
def test_the_q_agent_runs_on_a_fresh_download(no_data: Path) -> None:
    stand_in = tabular_q.Args(
        env="enwik8", scale="tiny", episodes=1, out=no_data / "q.json"
    )
    settings = {"max_iters": 4, "eval_interval": 2, "warmup_iters": 0, "n_layer": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tabular_q,
            "script_env",
            lambda env, **options: make_env(env, **(options | settings)),
        )
        tabular_q.main(stand_in)
    assert (no_data / "q.json").is_file()


def test_two_processes_download_once(server: Server, no_data: Path) -> None:
    script = (
        "import dataclasses, sys\n"
        "from lr_gym.data import corpora, downloads\n"
        "url, download, text, size = sys.argv[1:]\n"
        "downloads.PUBLISHED['enwik8'] = dataclasses.replace(\n"
        "    downloads.PUBLISHED['enwik8'], url=url, download_hash=download,\n"
        "    text_hash=text, size=int(size))\n"
        "print(corpora.load_corpus('enwik8').sha256)\n"
    )
    stand_in = downloads.PUBLISHED["enwik8"]
    command = [sys.executable, "-c", script, stand_in.url, stand_in.download_hash]
    command += [stand_in.text_hash, str(stand_in.size)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert answers == {hashlib.sha256(TEXT).hexdigest() + "\n"}
    assert server.requests == 1
    assert temporary_files(no_data / "cache") == ["enwik8"]


def test_a_download_with_another_hash_is_refused(
    server: Server, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = archive({"enwik8": TEXT[:-1]})
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "1")  # for local files only
    with pytest.raises(ValueError, match="hash"):
        load_corpus("enwik8")
    assert temporary_files(no_data / "cache") == []


@pytest.mark.parametrize(
    ("download", "message"),
    [
        (b"no archive at all", "not the published text|not a complete zip"),
        (archive({"other": TEXT}), "has no member 'enwik8'"),
        (archive({"../enwik8": TEXT, "/tmp/enwik8": TEXT}), "has no member 'enwik8'"),
        (archive({"enwik8": TEXT + b"!"}), "is larger than the published"),
        (archive({"enwik8": TEXT})[:-200], "not the published text|not a complete zip"),
        (damaged(archive({"enwik8": TEXT})), "is damaged"),
        (encrypted(archive({"enwik8": TEXT})), "is damaged: .* is encrypted"),
        (displaced(archive({"enwik8": TEXT})), "is damaged"),
    ],
    ids=[
        *("text", "member", "slip", "bomb", "truncated", "corrupted"),
        *("encrypted", "displaced"),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_no_files(
    server: Server,
    no_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    download: bytes,
    message: str,
) -> None:
    # Served with a matching hash, so that only the archive is wrong ...
    server.content = download
    publish(monkeypatch, server.url, download)
    with pytest.raises(ValueError, match=message):
        load_corpus("enwik8")
    assert temporary_files(no_data / "cache") in ([], ["enwik8"])
    assert not (no_data / "enwik8").exists()
    # ... and as a local file.
    data = no_data / "data"
    data.mkdir()
    (data / "enwik8.zip").write_bytes(download)
    monkeypatch.setenv("LR_GYM_DATA", str(data))
    with pytest.raises(ValueError, match=message):
        load_corpus("enwik8")
    assert [p.name for p in data.iterdir()] == ["enwik8.zip"]


def test_a_local_archive_is_used_before_any_download(
    server: Server, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_data / "enwik8.zip").write_bytes(server.content)
    monkeypatch.setenv("LR_GYM_DATA", str(no_data))
    assert load_corpus("enwik8").complete
    assert server.requests == 0


def test_offline_and_absent_says_what_to_do(server: Server, no_data: Path) -> None:
    server.stop()
    with pytest.raises(FileNotFoundError) as caught:
        load_corpus("enwik8")
    for part in ("enwik8", server.url, "LR_GYM_DATA", "corpus='markov'"):
        assert part in str(caught.value)
    assert temporary_files(no_data / "cache") == []


def test_the_q_agents_error_without_the_data(no_data: Path) -> None:
    """As a user sees it: the script, no data, no network."""
    environment = {
        **os.environ,
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
    }
    root = Path(tabular_q.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "agents/tabular_q.py", "--env", "enwik8", "--scale", "tiny"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert last.startswith("error: corpus 'enwik8' is not on this machine")
    assert "LR_GYM_DATA" in last
    assert "corpus='markov'" in last


# ------------------------------------------------------------- encodings and line ends


VERSE = "roses are red,\nviolets are blue\n" * 40


@pytest.mark.parametrize(
    "content",
    [
        VERSE.encode("utf-8-sig"),
        VERSE.replace("\n", "\r\n").encode(),
        VERSE.replace("\n", "\r").encode(),
        VERSE.replace("\n", "\r\n").encode("utf-8-sig"),
    ],
    ids=["mark", "crlf", "cr", "mark and crlf"],
)
def test_a_byte_order_mark_and_line_ends_are_no_symbols(
    tmp_path: Path, content: bytes
) -> None:
    plain, other = tmp_path / "plain.txt", tmp_path / "other.txt"
    plain.write_bytes(VERSE.encode())
    other.write_bytes(content)
    expected, corpus = load_corpus(plain), load_corpus(other)
    assert corpus.vocabulary == expected.vocabulary == tuple(sorted(set(VERSE)))
    assert (
        corpus.sha256 == expected.sha256 == hashlib.sha256(VERSE.encode()).hexdigest()
    )
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(corpus, split), getattr(expected, split))
    assert other.read_text(encoding="utf-8-sig") == VERSE  # as Python reads the file


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_another_encoding_is_refused_with_the_remedy(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(VERSE.encode(encoding))
    with pytest.raises(
        ValueError, match=r"text\.txt.* (UTF-16|NUL).* save it as UTF-8"
    ):
        load_corpus(path)


def test_an_invalid_byte_is_counted_as_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\xe9c" * 10)
    with pytest.raises(ValueError, match=r"byte 7 is 0xe9.* save it as UTF-8"):
        load_corpus(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text,
    ],
    ids=["crlf", "mark"],
)
def test_a_published_text_is_known_by_its_characters(
    no_data: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]
) -> None:
    text = VERSE.encode()
    publish(monkeypatch, "http://127.0.0.1:9/enwik8.zip", b"", text)
    (no_data / "enwik8").write_bytes(change(text))
    monkeypatch.setenv("LR_GYM_DATA", str(no_data))
    corpus = load_corpus("enwik8")
    assert corpus.complete
    assert f"sha256:{corpus.sha256}" == sha256(text)
    assert corpus.vocab_size == len(set(text))
    # A part of such a copy is a partial copy, with the same characters.
    (no_data / "enwik8").write_bytes(change(text[:-100]))
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "1")
    with pytest.warns(UserWarning, match="partial copy"):
        part = load_corpus("enwik8")
    assert part.vocabulary == corpus.vocabulary
    assert len(part.train) + len(part.val) + len(part.test) == len(text) - 100


@pytest.mark.parametrize("extra", [b"", b"more"], ids=["same size", "longer"])
def test_only_a_shorter_text_is_a_partial_copy(
    no_data: Path, monkeypatch: pytest.MonkeyPatch, extra: bytes
) -> None:
    text = VERSE.encode()
    publish(monkeypatch, "http://127.0.0.1:9/enwik8.zip", b"", text)
    (no_data / "enwik8").write_bytes(text.swapcase() + extra)
    monkeypatch.setenv("LR_GYM_DATA", str(no_data))
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "1")
    with pytest.raises(ValueError, match=r"is not the published text .* Replace it$"):
        load_corpus("enwik8")


# ------------------------------------------------------------------ the cache's folder


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


# -------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"aaaa", "has one distinct character"),
        (b"bad\xe9 byte" * 20, "is not utf-8 text: byte 3 is 0xe9"),
    ],
)
def test_a_bad_text_file_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_corpus(path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"corpus": "shakespear"}, ValueError, "did you mean 'shakespeare'"),
        ({"corpus": "nowhere/at/all.txt"}, ValueError, "which is neither"),
        ({"corpus": "."}, ValueError, "is a folder"),
        ({"corpus": 8}, TypeError, "corpus must be a name or a path, got 8"),
        ({"test_fraction": 0.51}, ValueError, r"test_fraction .* \[0, 0.5\], got 0.51"),
        ({"test_fraction": -0.1}, ValueError, "test_fraction must be"),
        ({"test_fraction": float("nan")}, ValueError, "test_fraction must be finite"),
        ({"test_fraction": True}, TypeError, "test_fraction must be a number"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_corpus(**({"corpus": "markov"} | arguments))


def test_a_text_too_short_to_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("ab")
    with pytest.raises(ValueError, match="with 2 characters its train split is empty"):
        load_corpus(path, test_fraction=0.5)


def test_a_data_folder_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR_GYM_DATA", "/nowhere")
    with pytest.raises(ValueError, match="LR_GYM_DATA must name a folder"):
        load_corpus("text8")
