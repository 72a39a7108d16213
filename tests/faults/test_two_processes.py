"""Two processes write to one output folder at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agents import train_controller
from benchmarks import results_file
from benchmarks.comparison import entry
from benchmarks.controller import foreign_loops
from benchmarks.speed import gpu_queue
from benchmarks.surrogate import fitting
from lr_gym import files
from lr_gym.files import only_process
from tests.helpers.commands import COMMANDS, finish, results, start

REFUSED = "another process is writing in"


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMANDS)
def test_the_second_process_is_refused_and_the_result_is_right(
    kind: str, tmp_path: Path
) -> None:
    assert finish(start(kind, tmp_path / "undisturbed"))[0] == 0
    out = tmp_path / "out"
    processes = [start(kind, out) for _ in range(2)]
    ends = [finish(process) for process in processes]
    for status, errors in ends:  # both may finish, one after the other
        assert status == 0 or REFUSED in errors
        assert "Traceback" not in errors
    assert 0 in dict(ends)
    assert results(out) == results(tmp_path / "undisturbed")


MAINS: dict[str, tuple[Any, str]] = {
    "comparison": (
        lambda out: entry.main(entry.Args(agents=("linear",), out=out)),
        ".running",
    ),
    "fit": (
        lambda out: fitting.main(fitting.Args(env="markov", out=out)),
        ".markov-tiny.running",
    ),
    "controller": (
        lambda out: train_controller.main(train_controller.Args(out=out)),
        ".running",
    ),
    "loops": (
        lambda out: foreign_loops.main(foreign_loops.Args(out=out / "loops.json")),
        ".loops.json.running",
    ),
    "gpu queue": (
        lambda out: gpu_queue.main(
            gpu_queue.Args(1.0, out, ("speed",), dry_run=True, committed=None)
        ),
        ".running",
    ),
}


@pytest.mark.parametrize("kind", MAINS)
def test_a_folder_in_use_is_refused_before_any_work(kind: str, tmp_path: Path) -> None:
    main, lock = MAINS[kind]
    with (
        only_process(tmp_path / lock),
        pytest.raises((SystemExit, BlockingIOError), match=REFUSED) as caught,
    ):
        main(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_results_of_two_processes_in_one_file_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads here: the lock does not know the difference."""
    monkeypatch.setattr(results_file, "provenance", dict)
    path = tmp_path / "results.json"

    def update(name: str) -> None:
        for number in range(20):
            results_file.update_result(path, f"{name}{number}", {})

    threads = [threading.Thread(target=update, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results_file.read_results(path)) == 40
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import importlib.util, sys, time\n"
        "from pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('files', sys.argv[1])\n"
        "files = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(files)\n"
        "with files.only_process(Path(sys.argv[2])):\n"
        "    print(flush=True)\n"
        "    time.sleep(600)\n"
    )
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", script, str(files.__file__), str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(BlockingIOError, match=REFUSED), only_process(lock):
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert lock.exists()
    with only_process(lock):
        assert lock.exists()
    assert not lock.exists()


def test_a_file_system_without_locks_is_named_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.warns(UserWarning, match="without locks .* start no second process"),
        only_process(tmp_path / "lock"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
