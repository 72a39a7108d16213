"""Bytes of any kind as a text: refused, or a whole corpus."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

import lr_gym
from lr_gym.data.downloads import PUBLISHED, read_published
from lr_gym.trainers.population import PopulationTrainer
from tests.helpers.fuzzing import SNIPPETS, WORDS, damaged_bytes, fuzz, refused, written
from tests.helpers.small import small_config

TEXT = "Roses are red,\nviolets are blue;\r\nsüß, 中文 and \U0001f339.\r".encode()
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp037")
PARTS = SNIPPETS | st.binary(max_size=8) | st.sampled_from([TEXT, b"ab", b"\n", b"a"])
NAMES = WORDS | st.sampled_from(["\0", "x" * 300, "~", "~nobody/x", "."])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Draw a text in some encoding, pieces of texts, or a damaged text."""
    kind = draw(st.sampled_from(["encoding", "parts", "damaged"]))
    if kind == "encoding":
        text = draw(st.text(max_size=40)) * draw(st.sampled_from([1, 9]))
        return text.encode(draw(st.sampled_from(ENCODINGS)), errors="replace")
    if kind == "parts":
        return b"".join(draw(st.lists(PARTS, max_size=6)))
    return draw(damaged_bytes(TEXT * 4))


@fuzz(60)
@given(
    content=texts(),
    test_fraction=st.none() | st.floats(0.0, 0.5),
    block_size=st.integers(1, 40),
)
def test_a_text_is_refused_or_trained_on(
    content: bytes, test_fraction: float | None, block_size: int
) -> None:
    path = str(written("text.txt", content))

    def train() -> None:
        corpus = lr_gym.load_corpus(path, test_fraction=test_fraction)
        text = corpus.decode([*corpus.train, *corpus.test, *corpus.val])
        assert text == content.decode("utf-8-sig").replace("\r\n", "\n").replace(
            "\r", "\n"
        )
        assert corpus.encode(text).max() == corpus.vocab_size - 1
        config = small_config(path, block_size=block_size, batch_size=1)
        trainer = PopulationTrainer(config, corpus)
        assert trainer.train(1, [1e-3])[0] > 0.0
        assert trainer.evaluate()[0] > 0.0

    refused(train)


@fuzz(30)
@given(name=NAMES)
def test_a_name_is_refused(name: str) -> None:
    assert refused(lambda: lr_gym.load_corpus(name))


ZIPPED = replace(PUBLISHED["text8"], size=1_000)


def archive() -> bytes:
    """Return a zip archive with the text that it should hold."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(ZIPPED.file, TEXT * 9)
    return content.getvalue()


def changed(place: int, value: int) -> bytes:
    """Return the archive with one other byte."""
    content = bytearray(archive())
    content[place] = value
    return bytes(content)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Draw a damaged archive, most often with one changed byte of its headers."""
    if draw(st.booleans()):
        return draw(damaged_bytes(archive()))
    size = len(archive())
    place = draw(st.integers(0, 40) | st.integers(size - 80, size - 1))
    return changed(place, draw(st.integers(0, 255)))


@fuzz(60)
@given(content=archives())
def test_a_damaged_archive_is_refused_or_read(content: bytes) -> None:
    path = written("text8.zip", content)
    refused(lambda: read_published(path, ZIPPED))
