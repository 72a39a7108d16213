"""Load a corpus, built in or a text file, as token ids in three splits."""

from __future__ import annotations

import codecs
import difflib
import hashlib
import os
import warnings
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.data.downloads import PUBLISHED, find_published, read_published
from lr_gym.data.markov import (
    MARKOV_ENTROPY_RATE,
    MARKOV_SHA256,
    MARKOV_VOCABULARY,
    generate_markov,
)
from lr_gym.files import user_path
from lr_gym.validation import check_real

CORPUS_NAMES = ("markov", "shakespeare", "enwik8", "text8")
TEST_FRACTION = 0.05  # the default for every corpus
ALLOW_PARTIAL = "LR_GYM_ALLOW_PARTIAL"


@dataclass(frozen=True)
class Corpus:
    """A text as token ids, in three disjoint splits.

    Attributes:
        name: The built-in name, or the file's path.
        vocabulary: Token id to character, sorted by code point.
        train: Token ids, one-dimensional; uint8 up to 256 symbols, else int32.
        val: The validation split, in the same format.
        test: The test split, in the same format; may be empty.
        complete: False for a partial copy of a published corpus.
        sha256: Hash of the text's bytes, hexadecimal; see `load_corpus`.
        entropy_rate: Exact lower bound of the loss, nats per character; `None` if it is
            not known.
    """

    name: str
    vocabulary: tuple[str, ...]
    train: NDArray[np.integer]
    val: NDArray[np.integer]
    test: NDArray[np.integer]
    complete: bool
    sha256: str
    entropy_rate: float | None

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return len(self.vocabulary)

    def facts(self) -> dict[str, Any]:
        """Return the description of the text that results store, as JSON types."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "corpus_complete": self.complete,
            "vocab_size": self.vocab_size,
            "entropy_rate": self.entropy_rate,
            "train_characters": len(self.train),
            "val_characters": len(self.val),
            "test_characters": len(self.test),
        }

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the token ids of `text`; raise ValueError for an unknown character."""
        ids = {symbol: token for token, symbol in enumerate(self.vocabulary)}
        for symbol in text:
            if symbol not in ids:
                raise ValueError(f"character {symbol!r} is not in corpus {self.name!r}")
        return np.array([ids[symbol] for symbol in text], dtype=np.int64)

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text of token ids."""
        return "".join(self.vocabulary[token] for token in np.asarray(tokens).tolist())


def load_corpus(
    corpus: str | os.PathLike[str], *, test_fraction: float | None = None
) -> Corpus:
    """Return a corpus by name, or a UTF-8 text file by path.

    Shakespeare and files have the order train, test, validation; validation is the last
    tenth, as in the paper. enwik8, text8 and markov have the order train, validation,
    test; validation is a twentieth.

    A file is read as ``open(path, encoding="utf-8-sig")`` reads it: a byte order mark
    is dropped, and the line ends CRLF and CR become LF. So a text has the same symbols,
    tokens and hash on every system. A file with NUL characters is refused: it is UTF-16
    or no text. A copy of a published text is read in the same way before its hash is
    checked.

    Args:
        corpus: ``markov``, ``shakespeare``, ``enwik8``, ``text8``, or a file's path;
            ``~`` is the home folder.
        test_fraction: Share of the text in the test split, in [0, 0.5]; `None` is 0.05.
            With 0, Shakespeare has the paper's 90/10 split.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The corpus is unknown, unreadable, too short or damaged, or
            `test_fraction` is out of range.
        FileNotFoundError: A published corpus is absent, and cannot be downloaded or
            saved in the cache.

    >>> text = load_corpus("markov")
    >>> text.vocab_size, len(text.train) > len(text.val)
    (32, True)
    """
    if not isinstance(corpus, str | os.PathLike):
        raise TypeError(f"corpus must be a name or a path, got {corpus!r}")
    fraction = TEST_FRACTION if test_fraction is None else test_fraction
    check_real("test_fraction", fraction, 0.0, 0.5)
    name = os.fspath(corpus)
    if name == "markov":
        return _markov(float(fraction))
    try:
        path = find_published(name) if name in PUBLISHED else _user_file(name)
        with path.open("rb"):
            stat = path.stat()
    except PermissionError as error:
        raise ValueError(f"corpus {name!r} cannot be read: {error}") from error
    loaded = _load_file(
        name, path, float(fraction), stat.st_mtime_ns, stat.st_size, _allow_partial()
    )
    if not loaded.complete:
        warnings.warn(
            f"{path} is a partial copy of {name}: its losses are not comparable with "
            "published ones",
            stacklevel=2,
        )
    return loaded


@lru_cache(maxsize=4)
def _markov(test_fraction: float) -> Corpus:
    splits = _split("markov", generate_markov(), 0.05, test_fraction, val_last=False)
    return Corpus(
        name="markov",
        vocabulary=MARKOV_VOCABULARY,
        complete=True,
        sha256=MARKOV_SHA256,
        entropy_rate=MARKOV_ENTROPY_RATE,
        **splits,
    )


@lru_cache(maxsize=4)
def _load_file(
    name: str,
    path: Path,
    test_fraction: float,
    _modified_ns: int,
    _size: int,
    allow_partial: bool,
) -> Corpus:
    """Read, check and split a text; underscored arguments only key the cache."""
    label = f"corpus {name!r} ({path})"
    published = PUBLISHED.get(name)
    if published is None:
        encoding, val_fraction, val_last = "utf-8", 0.1, True
        content = path.read_bytes()
        _check_text(content, encoding, label)
        content = _plain_text(content)
        complete = True
    else:
        encoding = published.encoding
        val_fraction, val_last = published.val_fraction, published.val_last
        content = read_published(path, published)
        complete = _matches(content, published.text_hash)
        if not complete:
            content = _plain_text(content)
            complete = _matches(content, published.text_hash)
        shorter = len(content) < published.size
        if not complete and not (allow_partial and shorter):
            remedy = f", or set {ALLOW_PARTIAL}=1 to use a partial copy"
            raise ValueError(
                f"corpus {name!r}: {path} is not the published text (its hash differs; "
                f"it has {len(content):,} bytes, the published text "
                f"{published.size:,}). Replace it{remedy if shorter else ''}"
            )
        if not complete:
            _check_text(content, encoding, label)
    tokens, vocabulary = _tokenize(content, encoding, label)
    splits = _split(name, tokens, val_fraction, test_fraction, val_last=val_last)
    return Corpus(
        name=name,
        vocabulary=vocabulary,
        complete=complete,
        sha256=hashlib.sha256(content).hexdigest(),
        entropy_rate=None,
        **splits,
    )


def _plain_text(content: bytes) -> bytes:
    """Return a text without byte order mark and with LF line ends."""
    content = content.removeprefix(codecs.BOM_UTF8)
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _check_text(content: bytes, encoding: str, label: str) -> None:
    """Raise ValueError unless `content` is text in `encoding`; `label` names it."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{label} is UTF-16 or UTF-32 text: save it as UTF-8")
    if b"\0" in content:
        raise ValueError(
            f"{label} has a NUL character at byte {content.index(0)}: it is UTF-16 or "
            "UTF-32 text, or no text; save it as UTF-8"
        )
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{label} is not {encoding} text: byte {error.start} is "
            f"0x{content[error.start]:02x}; save it as UTF-8"
        ) from error


def _tokenize(
    content: bytes, encoding: str, label: str
) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    """Return token ids and their vocabulary; `label` names the text in errors."""
    if not content:
        raise ValueError(f"{label} is empty")
    codes: NDArray[np.integer]
    if encoding == "latin-1":
        codes = np.frombuffer(content, dtype=np.uint8)
    else:
        text = content.decode(encoding)
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    present = np.flatnonzero(np.bincount(codes))  # the code points that occur, sorted
    if len(present) < 2:
        raise ValueError(f"{label} has one distinct character; it needs at least 2")
    lookup = np.zeros(present[-1] + 1, np.uint8 if len(present) <= 256 else np.int32)
    lookup[present] = np.arange(len(present))
    return lookup[codes], tuple(chr(code) for code in present)


def _split(
    name: str,
    tokens: NDArray[np.integer],
    val_fraction: float,
    test_fraction: float,
    *,
    val_last: bool,
) -> dict[str, NDArray[np.integer]]:
    """Split into train, val and test; `val_last` puts validation at the end."""
    size = len(tokens)
    # Exact fractions: with floats, 90 % of enwik8 would be one character short.
    val, test = Fraction(str(val_fraction)), Fraction(str(test_fraction))
    first_cut = int(size * (1 - val - test))
    second_cut = int(size * (1 - (val if val_last else test)))
    parts = (tokens[:first_cut], tokens[first_cut:second_cut], tokens[second_cut:])
    names = ("train", "test", "val") if val_last else ("train", "val", "test")
    splits = dict(zip(names, parts, strict=True))
    for split in ("train", "val"):
        if not len(splits[split]):
            raise ValueError(
                f"corpus {name!r} is too short: with {size} characters its {split} "
                "split is empty"
            )
    for part in splits.values():
        part.setflags(write=False)
    return splits


def _user_file(name: str) -> Path:
    """Return the path of a text file; raise ValueError if it is not one."""
    path = user_path(name)
    if path.is_dir():
        raise ValueError(f"corpus {name!r} is a folder; pass the path of a text file")
    if not path.is_file():
        near = difflib.get_close_matches(name, CORPUS_NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"corpus must be one of {', '.join(CORPUS_NAMES)}, or the path of a text "
            f"file; got {name!r}, which is neither{hint}"
        )
    return path.resolve()


def _matches(content: bytes, expected: str) -> bool:
    """Return whether `content` has the hash `expected`, ``algorithm:hex``."""
    algorithm, _, digest = expected.partition(":")
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() == digest


def _allow_partial() -> bool:
    """Return whether partial copies of published corpora are allowed."""
    return os.environ.get(ALLOW_PARTIAL, "") not in ("", "0")
