"""The published corpora: where they are, how to know them, how to get them.

A text is taken from the folder `LR_GYM_DATA`, else from the cache (`LR_GYM_CACHE`,
default the user's cache folder), else downloaded once into the cache, its hash checked.
Nothing is unpickled, and of an archive only the one expected member is read, into a
file of our own naming.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lr_gym.files import cache_folder


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
    val_last: bool  # the splits' order: train, test, val; otherwise train, val, test

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


def find_published(name: str) -> Path:
    """Return the file of a published corpus: local, from the cache, or downloaded.

    Raises:
        ValueError: `LR_GYM_DATA` is no folder, or the download has another hash.
        FileNotFoundError: The corpus is absent and cannot be downloaded.
    """
    published = PUBLISHED[name]
    folder = os.environ.get("LR_GYM_DATA")
    if folder:
        if not Path(folder).is_dir():
            raise ValueError(f"LR_GYM_DATA must name a folder, got {folder!r}")
        for candidate in (published.file, f"{published.file}.zip"):
            path = Path(folder) / candidate
            if path.is_file() and (published.zipped or candidate == published.file):
                return path.resolve()
    cached = cache_folder() / published.file
    return cached if cached.is_file() else _download(name, published, cached)


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
                file.write_bytes(read_published(fetched, published))
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


def read_published(path: Path, published: PublishedCorpus) -> bytes:
    """Return the text in `path`: the text itself, or the published archive around it.

    Raises:
        ValueError: The archive is damaged, or does not hold what it should.
    """
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
