"""A byte order mark and line ends are no symbols; other encodings are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lr_gym import load_corpus
from tests.helpers.published import publish, sha256

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
