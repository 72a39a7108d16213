"""Packed jobs: nothing is lost, and the same jobs give the same archive."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from benchmarks.pack_jobs import Args, main, pack


def test_an_archive_unpacks_to_the_same_files(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    names = [f"job-{number}.json" for number in range(3)] + [f"{'long' * 40}.json"]
    contents = {name: f'{{"seed": {seed}}}\n' for seed, name in enumerate(names)}
    for name, content in contents.items():
        (jobs / name).write_text(content)
    path = main(Args(tmp_path))
    with tarfile.open(path) as tar:
        again = {}
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:  # a folder has none
                again[member.name] = file.read().decode()
    assert again == {f"jobs/{name}": content for name, content in contents.items()}
    os.utime(jobs / "job-0.json", (1, 1))
    assert pack(tmp_path) == path.read_bytes()


def test_a_folder_without_jobs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no jobs in"):
        main(Args(tmp_path))
    assert list(tmp_path.iterdir()) == []
