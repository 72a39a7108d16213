"""Pack the job files of a result folder, so that they can be kept with the code.

    python -m benchmarks.pack_jobs --folder benchmarks/results/comparison/tiny

writes jobs.tar.xz there, the same bytes for the same jobs. Unpacked in the folder
(``tar -xJf jobs.tar.xz``), the command that made them finds every job done and computes
summary and report again.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lr_gym.files import write_bytes


@dataclass
class Args:
    """Pack FOLDER/jobs into FOLDER/jobs.tar.xz."""

    folder: Path
    """Of a comparison, as its --out."""


def packed(folder: Path) -> bytes:
    """Return the archive of ``jobs/*.json`` in `folder`.

    Raises:
        FileNotFoundError: There are none.
    """
    paths = sorted((folder / "jobs").glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no jobs in {folder / 'jobs'}")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"jobs/{path.name}")  # nobody's, of no date
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return lzma.compress(archive.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main(args: Args) -> Path:
    """Write the archive and return its path."""
    try:
        content = packed(args.folder)
    except FileNotFoundError as error:
        raise SystemExit(f"error: {error}") from error
    path = args.folder / "jobs.tar.xz"
    write_bytes(path, content)
    print(f"{path}: {len(content):,} bytes")
    return path


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
