"""Write files atomically, and find the cache folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically: write a temporary file, then rename it to `path`.

    Args:
        path: The file. Missing folders are created; an existing file is replaced.
        content: The file's bytes.

    Raises:
        OSError: The folder cannot be created or written. `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def cache_folder() -> Path:
    """Return the cache folder: `LR_GYM_CACHE` if it is set, else the user's default."""
    folder = os.environ.get("LR_GYM_CACHE")
    if folder:
        return Path(folder)
    import pooch

    return Path(pooch.os_cache("lr_gym"))
