"""The published corpora: find them on this machine or download them.

The folder `LR_GYM_DATA` is searched first, then the cache (`LR_GYM_CACHE`, by default
the user's cache folder). If neither has the text, it is downloaded into the cache and
its hash is checked. Nothing is unpickled. Only the expected member of an archive is
read, and this module chooses the name of the file it is written to.
"""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lr_gym.files import ARCHIVE_ERRORS, cache_folder, data_folder, write_bytes


@dataclass(frozen=True)
class PublishedCorpus:
    """Source, hashes (``algorithm:hex``) and splits of a published corpus."""

    file: str  # name of the text in LR_GYM_DATA and in the cache
    url: str
    download_hash: str
    text_hash: str
    size: int  # of the text, bytes
    encoding: str
    val_fraction: float
    val_last: bool  # order of the splits: train, test, val; else train, val, test

    @property
    def zipped(self) -> bool:
        """Whether the download is an archive that holds the text."""
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
        # The site publishes only the text's md5.
        text_hash="md5:3bea1919949baf155f99411df5fada7e",
        size=100_000_000,
        encoding="latin-1",
        val_fraction=0.05,
        val_last=False,
    ),
}


def find_published(name: str) -> Path:
    """Return the path of a published corpus; download it if it is not here.

    Raises:
        ValueError: `LR_GYM_DATA` is not a folder, or the download's hash is wrong.
        FileNotFoundError: The corpus is absent, and cannot be downloaded or saved.
    """
    published = PUBLISHED[name]
    folder = data_folder()
    if folder is not None:
        for candidate in (published.file, f"{published.file}.zip"):
            path = folder / candidate
            if path.is_file() and (published.zipped or candidate == published.file):
                return path.resolve()
    cached = cache_folder() / published.file
    try:
        if not cached.is_file():
            _download(published, cached)
    except (OSError, NotImplementedError) as error:  # the second: no locks
        raise FileNotFoundError(
            f"corpus {name!r} is not on this machine and "
            f"{_explain(error, cached.parent)} save {published.file} from "
            f"{published.url} in a folder and set LR_GYM_DATA to that folder, or use "
            "corpus='markov', which is built in"
        ) from error
    return cached


def _explain(error: Exception, folder: Path) -> str:
    """Say whether a download failed at the network or at the cache folder."""
    from requests.exceptions import RequestException

    if isinstance(error, RequestException):
        return f"cannot be downloaded ({type(error).__name__}). Either"
    return (
        f"the cache folder {folder} cannot be used ({type(error).__name__}: {error}). "
        "Set LR_GYM_CACHE to another folder, or"
    )


def _download(published: PublishedCorpus, target: Path) -> None:
    """Download, check and unpack into the cache, in one process at a time."""
    import pooch
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if target.is_file():  # another process has downloaded it
            return
        folder = target.with_name(f".{target.name}.download")
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        try:
            download = pooch.retrieve(
                published.url,
                published.download_hash,
                fname=f"{target.name}.download",
                path=folder,
                progressbar=True,
            )
            write_bytes(target, read_published(Path(download), published))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def read_published(path: Path, published: PublishedCorpus) -> bytes:
    """Return the text in `path`, which is the text or the published archive.

    Raises:
        ValueError: The archive is damaged or does not hold the text.
    """
    if not published.zipped or not zipfile.is_zipfile(path):
        if path.suffix == ".zip":
            raise ValueError(f"{path} is not a complete zip archive; replace it")
        return path.read_bytes()
    with path.open("rb") as file:  # raises the errors of the file itself
        try:
            with (
                zipfile.ZipFile(file) as archive,
                archive.open(published.file) as member,
            ):
                content = member.read(published.size + 1)
        except KeyError as error:
            raise ValueError(f"{path} has no member {published.file!r}") from error
        except ARCHIVE_ERRORS as error:
            raise ValueError(f"{path} is damaged: {error}; replace it") from error
    if len(content) > published.size:
        raise ValueError(
            f"{path}: {published.file!r} is larger than the published "
            f"{published.size:,} bytes; replace it"
        )
    return content
