"""Pack the job files of a results folder into one archive, to commit it.

    python -m benchmarks.pack_jobs --folder benchmarks/results/comparison/tiny

writes jobs.tar.xz there; the same jobs give the same bytes. Unpack it in the folder
(``tar -xJf jobs.tar.xz``): the command that made the jobs then finds all of them
finished, and computes the summary and report again.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from dataclasses import dataclass
from pathlib import Path

from agents.command_line import parse_command_line
from lr_gym.files import write_bytes


@dataclass
class Args:
    """Pack FOLDER/jobs into FOLDER/jobs.tar.xz."""

    folder: Path
    """Output folder of a comparison."""


def pack(folder: Path) -> bytes:
    """Return the archive of ``jobs/*.json`` in `folder`.

    Raises:
        FileNotFoundError: There are no jobs.
    """
    paths = sorted((folder / "jobs").glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no jobs in {folder / 'jobs'}")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"jobs/{path.name}")  # without owner and date
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return lzma.compress(archive.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main(args: Args) -> Path:
    """Write the archive and return its path."""
    try:
        content = pack(args.folder)
    except FileNotFoundError as error:
        raise SystemExit(f"error: {error}") from error
    path = args.folder / "jobs.tar.xz"
    write_bytes(path, content)
    print(f"{path}: {len(content):,} bytes")
    return path


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
