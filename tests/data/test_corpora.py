"""Corpora: exact splits, vocabularies, and errors that name the bad argument."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_gym import Corpus, load_corpus
from lr_gym.data import corpora

REAL = os.environ.get("LR_GYM_DATA", "")  # before a fixture removes it


@pytest.mark.real_text
def test_shakespeare_has_the_papers_validation_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LR_GYM_DATA", REAL)
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
