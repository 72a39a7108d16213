"""From text to token ids and splits: the built-in corpora, and any text file.

A published corpus is taken from the folder `LR_GYM_DATA`, else from the cache
(`LR_GYM_CACHE`, default the user's cache folder), else downloaded once into the cache.
Its hash is always checked. Nothing is unpickled, and of an archive only the one
expected member is read, into a file of our own naming.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lr_gym.config import check_real
from lr_gym.markov import (
    MARKOV_ENTROPY_RATE,
    MARKOV_SHA256,
    MARKOV_VOCABULARY,
    generate_markov,
)

CORPUS_NAMES = ("markov", "shakespeare", "enwik8", "text8")
TEST_FRACTION = 0.05  # the default for every corpus
ALLOW_PARTIAL = "LR_GYM_ALLOW_PARTIAL"


@dataclass(frozen=True)
class Corpus:
    """A text as token ids, in three splits that do not overlap.

    Attributes:
        name: The built-in name, or the file's path.
        vocabulary: Token id to character, sorted by code point.
        train: Token ids, one-dimensional; uint8 up to 256 symbols, else int32.
        val: The validation split, likewise.
        test: The test split, likewise; may be empty.
        complete: False for a partial copy of a published corpus.
        sha256: Of the raw text, hexadecimal.
        entropy_rate: The exact floor of the loss in nats per character, where known.
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

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the token ids of `text`; ValueError at a character that is unknown."""
        ids = {symbol: token for token, symbol in enumerate(self.vocabulary)}
        for symbol in text:
            if symbol not in ids:
                raise ValueError(f"character {symbol!r} is not in corpus {self.name!r}")
        return np.array([ids[symbol] for symbol in text], dtype=np.int64)

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text of token ids."""
        return "".join(self.vocabulary[token] for token in np.asarray(tokens).tolist())


@dataclass(frozen=True)
class PublishedCorpus:
    """Where a corpus is published, and how to know it. Hashes are ``algorithm:hex``."""

    file: str  # the text's own name, in LR_GYM_DATA and in the cache
    url: str
    download_hash: str
    text_hash: str
    size: int  # of the text, bytes
    encoding: str
    val_fraction: float
    val_last: (
        bool  # train, test, val as in the paper's Shakespeare; else train, val, test
    )

    @property
    def zipped(self) -> bool:
        """Whether the download is an archive around the text."""
        return self.url.endswith(".zip")


_SHAKESPEARE_HASH = (
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
)
PUBLISHED = {
    "shakespeare": PublishedCorpus(
        file="tinyshakespeare.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
        "tinyshakespeare/input.txt",
        download_hash=_SHAKESPEARE_HASH,
        text_hash=_SHAKESPEARE_HASH,
        size=1_115_394,
        encoding="utf-8",
        val_fraction=0.1,
        val_last=True,
    ),
    "enwik8": PublishedCorpus(
        file="enwik8",
        url="http://mattmahoney.net/dc/enwik8.zip",
        download_hash="sha256:"
        "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        text_hash="sha256:"
        "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
        size=100_000_000,
        encoding="latin-1",
        val_fraction=0.05,
        val_last=False,
    ),
    "text8": PublishedCorpus(
        file="text8",
        url="http://mattmahoney.net/dc/text8.zip",
        download_hash="sha256:"
        "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        # Of the text inside, md5 is what is published.
        text_hash="md5:3bea1919949baf155f99411df5fada7e",
        size=100_000_000,
        encoding="latin-1",
        val_fraction=0.05,
        val_last=False,
    ),
}


def load_corpus(
    corpus: str | os.PathLike[str], *, test_fraction: float | None = None
) -> Corpus:
    """Return a corpus by name, or a UTF-8 text file by path.

    Validation is the last tenth of Shakespeare and of a file (the paper's split), with
    the test split before it; enwik8, text8 and markov are split into train, validation
    (a twentieth) and test, in this order.

    Args:
        corpus: ``markov``, ``shakespeare``, ``enwik8``, ``text8``, or a file's path.
        test_fraction: Share of the text held out for testing, in [0, 0.5]; `None` is
            0.05. With 0, Shakespeare is the paper's 90/10 split.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The corpus is unknown, unreadable, too short or damaged, or
            `test_fraction` is out of range.
        FileNotFoundError: A published corpus is absent and cannot be downloaded.

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
    path = _find(name) if name in PUBLISHED else _user_file(name)
    facts = path.stat()
    loaded = _load_file(
        name, path, float(fraction), facts.st_mtime_ns, facts.st_size, _allow_partial()
    )
    if not loaded.complete:
        warnings.warn(
            f"{path} is a partial copy of {name}: its losses do not compare with "
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
    _changed: int,
    _size: int,
    partial_allowed: bool,
) -> Corpus:
    """Read, check and split a text; the underscored arguments key the cache only."""
    published = PUBLISHED.get(name)
    if published is None:
        encoding, val_fraction, val_last = "utf-8", 0.1, True
        content = path.read_bytes()
        complete = True
    else:
        encoding = published.encoding
        val_fraction, val_last = published.val_fraction, published.val_last
        content = _read_published(path, published)
        complete = _matches(content, published.text_hash)
        if not complete and not partial_allowed:
            raise ValueError(
                f"corpus {name!r}: {path} is not the published text ({len(content):,} "
                f"bytes, published are {published.size:,}; the hash differs). Replace "
                f"it, or set {ALLOW_PARTIAL}=1 to run on it as a partial copy"
            )
    tokens, vocabulary = _tokenize(content, encoding, f"corpus {name!r} ({path})")
    splits = _split(name, tokens, val_fraction, test_fraction, val_last=val_last)
    return Corpus(
        name=name,
        vocabulary=vocabulary,
        complete=complete,
        sha256=hashlib.sha256(content).hexdigest(),
        entropy_rate=None,
        **splits,
    )


def _tokenize(
    content: bytes, encoding: str, what: str
) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    """Return token ids and the vocabulary they index, sorted by code point."""
    if not content:
        raise ValueError(f"{what} is empty")
    codes: NDArray[np.integer]
    if encoding == "latin-1":
        codes = np.frombuffer(content, dtype=np.uint8)
    else:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{what} is not {encoding} text: byte {error.start} is "
                f"0x{content[error.start]:02x}"
            ) from error
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    present = np.flatnonzero(np.bincount(codes))  # the code points that occur, sorted
    if len(present) < 2:
        raise ValueError(f"{what} has one distinct character; at least 2 are needed")
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
    """Cut into train, val and test; with `val_last`, validation is at the end."""
    size = len(tokens)
    # Exact fractions: in floats, 90 % of enwik8 would come out one character short.
    val, test = Fraction(str(val_fraction)), Fraction(str(test_fraction))
    first_cut = int(size * (1 - val - test))
    second_cut = int(size * (1 - (val if val_last else test)))
    parts = (tokens[:first_cut], tokens[first_cut:second_cut], tokens[second_cut:])
    names = ("train", "test", "val") if val_last else ("train", "val", "test")
    splits = dict(zip(names, parts, strict=True))
    for split in ("train", "val"):
        if not len(splits[split]):
            raise ValueError(
                f"corpus {name!r} is too short: {size} characters leave an empty "
                f"{split} split"
            )
    for part in splits.values():
        part.setflags(write=False)
    return splits


# --------------------------------------------------------------------- finding the text


def _user_file(name: str) -> Path:
    """Return the path of a text file, or say what `corpus` may be."""
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"corpus {name!r} is a folder; pass the path of a text file")
    if not path.is_file():
        near = difflib.get_close_matches(name, CORPUS_NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"corpus must be one of {', '.join(CORPUS_NAMES)}, or the path of a text "
            f"file; got {name!r}, which is neither{hint}"
        )
    if not os.access(path, os.R_OK):
        raise ValueError(f"corpus {name!r} cannot be read: permission denied")
    return path.resolve()


def _find(name: str) -> Path:
    """Return the file of a published corpus: LR_GYM_DATA, the cache, or a download."""
    published = PUBLISHED[name]
    folder = os.environ.get("LR_GYM_DATA")
    if folder:
        if not Path(folder).is_dir():
            raise ValueError(f"LR_GYM_DATA must name a folder, got {folder!r}")
        for candidate in (published.file, f"{published.file}.zip"):
            path = Path(folder) / candidate
            if path.is_file() and (published.zipped or candidate == published.file):
                return path.resolve()
    cached = _cache() / published.file
    return cached if cached.is_file() else _download(name, published, cached)


def _cache() -> Path:
    given = os.environ.get("LR_GYM_CACHE")
    if given:
        return Path(given)
    import pooch

    return Path(pooch.os_cache("lr_gym"))


def _download(name: str, published: PublishedCorpus, target: Path) -> Path:
    """Download, check and unpack into the cache; one process at a time."""
    import pooch
    from filelock import FileLock
    from requests.exceptions import RequestException

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if target.is_file():  # another process was here first
            return target
        fetched = target.with_name(f"{target.name}.download")
        try:
            pooch.retrieve(
                published.url,
                published.download_hash,
                fname=fetched.name,
                path=target.parent,
                progressbar=True,
            )
        except (RequestException, OSError) as error:
            raise FileNotFoundError(
                f"corpus {name!r} is not on this machine and cannot be downloaded "
                f"({type(error).__name__}). Put {published.file} (from "
                f"{published.url}) into a folder and set LR_GYM_DATA to it, or use "
                "corpus='markov', which is built in"
            ) from error
        try:
            with _complete_or_absent(target) as file:
                file.write_bytes(_read_published(fetched, published))
        finally:
            fetched.unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def _complete_or_absent(target: Path) -> Iterator[Path]:
    """Give a temporary name beside `target`; rename it at the end, or remove it."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _read_published(path: Path, published: PublishedCorpus) -> bytes:
    """Return the text in `path`, which is the text itself or the published archive."""
    if not published.zipped or not zipfile.is_zipfile(path):
        if path.suffix == ".zip":
            raise ValueError(f"{path} is not a whole zip archive; replace it")
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive, archive.open(published.file) as member:
            content = member.read(published.size + 1)
    except KeyError as error:
        raise ValueError(f"{path} holds no member {published.file!r}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged: {error}; replace it") from error
    if len(content) > published.size:
        raise ValueError(
            f"{path}: {published.file!r} is larger than the published "
            f"{published.size:,} bytes; replace it"
        )
    return content


def _matches(content: bytes, expected: str) -> bool:
    algorithm, _, digest = expected.partition(":")
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() == digest


def _allow_partial() -> bool:
    return os.environ.get(ALLOW_PARTIAL, "") not in ("", "0")
