"""Where files are kept, and writing them so that readers see all or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to a temporary name beside `path`, then rename it.

    Args:
        path: The file; missing folders are made, an existing file is replaced.
        content: What it holds then.

    Raises:
        OSError: The folder cannot be made or written; `path` is then as it was.
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
    """Return the folder of what is kept between runs: `LR_GYM_CACHE`, or the user's."""
    given = os.environ.get("LR_GYM_CACHE")
    if given:
        return Path(given)
    import pooch

    return Path(pooch.os_cache("lr_gym"))
