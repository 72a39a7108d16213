"""Write files atomically, lock them, and find the folders that users name."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import stat
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# What `zipfile` raises for a damaged archive. OSError: an offset is negative;
# RuntimeError: a member is encrypted; ValueError: a name is not UTF-8.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
    MemoryError,
)
MAX_READ_BYTES = 64 * 2**20  # of a file that is read whole


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a user's path with a leading ``~`` replaced by the home folder.

    A shell replaces it in ``--out ~/x``, but not in ``--out=~/x`` or in quotes.

    Raises:
        TypeError: `path` is neither a string nor a path.
        ValueError: The home folder is unknown, or `path` holds a NUL character.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a path must be a string or a path, got {path!r}")
    if "\0" in str(path):
        raise ValueError(f"a path must not hold a NUL character, got {path!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{os.fspath(path)!r}: the home folder of '~' is unknown; write the whole "
            f"path, or './{os.fspath(path)}' for a file of that name"
        ) from error


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: The file is absent, cannot be read, or is a folder, a pipe or a device.
        ValueError: It has more than `MAX_READ_BYTES`.
    """
    path = user_path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file: it cannot be read")
    with path.open("rb") as file:
        content = file.read(MAX_READ_BYTES + 1)
    if len(content) > MAX_READ_BYTES:
        raise ValueError(f"the file has more than {MAX_READ_BYTES:,} bytes")
    return content


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON value in `text`; raise ValueError if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: The file is absent or cannot be read.
        ValueError: It does not hold a JSON object.
    """
    try:
        content = parse_json(read_file(path))
        if isinstance(content, dict):
            return content
        problem = f"it holds a JSON {type(content).__name__}"
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"{path} must hold a JSON object: {problem}; repair or delete it")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically: write a temporary file, then rename it to `path`.

    A new file has the mode that the umask allows, and an existing file keeps its mode.
    If `path` is a symbolic link, its target is written. A process that is killed here
    leaves its temporary file; the next write of the same file removes it.

    Args:
        path: The file; ``~`` is the home folder. Missing folders are created.
        content: The file's bytes.

    Raises:
        OSError: The folder cannot be created or written, the disk is full, or `path` is
            write-protected, a folder, a pipe or a device. `path` is unchanged.
        ValueError: `path` begins with ``~``, and the home folder is unknown.
    """
    path = user_path(path)
    target = Path(os.path.realpath(path))
    mode = None
    if target.is_symlink():
        raise OSError(f"{path} is in a loop of symbolic links")
    if target.exists():
        if not target.is_file():
            raise OSError(f"{path} is not a regular file: it cannot be replaced")
        if not os.access(target, os.W_OK):
            raise PermissionError(f"{path} is write-protected")
        mode = stat.S_IMODE(target.stat().st_mode)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(target.name.encode(errors="surrogateescape")).hexdigest()
    prefix = f".lr_gym-{digest[:10]}-"  # a name of 255 bytes leaves no room for more
    try:
        while not _replace(target, content, mode, prefix):
            pass
    except OSError as error:
        if error.errno is None:
            raise
        problem = f"{error.strerror}; the file is unchanged"
        raise OSError(error.errno, problem, str(path)) from error
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _replace(target: Path, content: bytes, mode: int | None, prefix: str) -> bool:
    """Write a temporary file and rename it to `target`.

    Returns:
        False if another process, which has just written `target`, took the temporary
        file for the leftover of a killed process.
    """
    # Only the user can enter this folder: the text is never more public than `target`.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as folder:
        temporary = Path(folder) / "content"
        try:
            temporary.write_bytes(content)
            if mode is not None:
                temporary.chmod(mode)
            temporary.replace(target)
        except FileNotFoundError:
            if target.parent.is_dir() and not temporary.exists():
                return False
            raise
    return True


@contextmanager
def only_process(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` in the block, so that no second process runs it.

    The lock of a killed process is free. The file is removed at the end of the block.
    Where the file system has no locks, a warning says so and the block runs.

    Args:
        path: The lock file; missing folders are created.
        wait: Wait for the other process.

    Raises:
        BlockingIOError: Another process holds the lock, and `wait` is False.
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(path, wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path, wait: bool) -> int:
    """Return the descriptor of the locked file."""
    import fcntl  # POSIX alone has it

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            os.close(descriptor)
            raise BlockingIOError(
                f"another process is writing in {path.parent} (it holds {path.name}): "
                "wait until it ends, or choose another folder"
            ) from error
        except OSError as error:
            warnings.warn(
                f"{path.parent} is on a file system without locks ({error.strerror}): "
                "start no second process that writes there",
                stacklevel=4,
            )
            return descriptor
        # The file may have been removed between opening and locking.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def data_folder() -> Path | None:
    """Return the folder in `LR_GYM_DATA`; `None` if it is not set.

    Raises:
        ValueError: `LR_GYM_DATA` does not name a folder that can be read.
    """
    name = os.environ.get("LR_GYM_DATA")
    if not name:
        return None
    try:
        folder = user_path(name)
        if folder.is_dir():
            return folder
        problem = ""
    except (OSError, ValueError) as error:
        problem = f" ({error})"
    raise ValueError(f"LR_GYM_DATA must name a folder, got {name!r}{problem}")


def cache_folder() -> Path:
    """Return the cache folder: `LR_GYM_CACHE` if it is set, else the user's default.

    Raises:
        ValueError: The home folder is unknown.
    """
    folder = os.environ.get("LR_GYM_CACHE")
    if folder:
        try:
            return user_path(folder)
        except ValueError as error:
            raise ValueError(f"LR_GYM_CACHE must name a folder: {error}") from error
    import pooch

    try:
        return user_path(pooch.os_cache("lr_gym"))
    except (RuntimeError, ValueError) as error:  # RuntimeError: from platformdirs
        raise ValueError(
            "the cache needs a home folder, which is unknown: set LR_GYM_CACHE to a "
            "folder for it, or LR_GYM_DATA to a folder that holds the texts"
        ) from error


def writable_cache_folder() -> Path:
    """Create the cache folder if it is missing, and return it.

    Raises:
        OSError: The folder cannot be written.
        ValueError: The home folder is unknown.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(
            f"the cache folder {folder} cannot be written ({error.strerror}): set "
            "LR_GYM_CACHE to another folder"
        ) from error
