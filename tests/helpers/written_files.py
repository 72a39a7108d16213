"""Every kind of file that the project writes, and what holds when a write fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.deep_rl import DeepAgent
from agents.tabular_q import TabularQ
from benchmarks import pack_jobs
from benchmarks.comparison import summary
from benchmarks.comparison.figures import draw_episodes, line_styles
from benchmarks.comparison.jobs import save_record
from benchmarks.comparison.report import write_report
from benchmarks.event_files import write_curves
from benchmarks.results_file import write_json
from lr_gym.controllers import ActionPolicy, ControllerLR, save_policy, save_state
from lr_gym.files import write_bytes, write_text
from lr_gym.surrogate.runs import CURVES, RecordedRun, save_runs
from tests.helpers.laws import make_law
from tests.helpers.records import (
    PROTOCOL,
    small_comparison,
    small_record,
    small_run,
)

Write = Callable[[], object]
FEW = ("linear", "cosine", "q_paper")
Full = Callable[[], AbstractContextManager[object]]


def results(folder: Path, version: int) -> Write:
    return lambda: write_json(folder / "results.json", {"values": [version] * 400})


def job(folder: Path, version: int) -> Write:
    record = small_record("linear", "test", [small_run(0, 2.0 + version, 1e-3)])
    return lambda: save_record(folder / "jobs" / "job.json", record)


def archive(folder: Path, version: int) -> Write:
    """Its jobs are in another folder, which is not full."""
    random = np.random.default_rng(version)
    jobs = folder.parent / f"jobs-{folder.name}-{version}"
    write_text(jobs / "jobs" / "a.json", str(random.random(500).tolist()))
    content = pack_jobs.pack(jobs)
    return lambda: write_bytes(folder / "jobs.tar.xz", content)


def summaries(folder: Path, version: int) -> Write:
    records = small_comparison(FEW, seeds=range(3 + version))
    return lambda: summary.write_summary(folder, records)


def report(folder: Path, version: int) -> Write:
    records = small_comparison(FEW, seeds=range(3 + version))
    rows = summary.summarize(records)
    path = folder / "report.html"
    return lambda: write_report(path, records, rows, PROTOCOL, "command")


def picture(folder: Path, version: int) -> Write:
    records = small_comparison(FEW, seeds=range(3 + version))
    svg = draw_episodes(records, list(line_styles(summary.summarize(records)))[:2])
    return lambda: write_text(folder / "curves.svg", svg)


def events(folder: Path, version: int) -> Write:
    tested = {"linear": {"markov tiny": [small_run(0, 2.0 + version, 1e-3)]}}
    return lambda: write_curves(folder, tested)


def schedule(folder: Path, version: int) -> Write:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1e-3 + version)
    controller = ControllerLR(optimizer, total_steps=400)
    weight.grad = torch.ones(2)
    for _ in range(400):
        optimizer.step()
    return lambda: controller.export_schedule(folder / "schedule.csv")


def policy(folder: Path, version: int) -> Write:
    from lr_gym import load_controller

    rule: Any = load_controller("default")
    assert not isinstance(rule, ActionPolicy)
    notes = {"notes": str(version) * 400}
    return lambda: save_policy(rule, folder / "policy.safetensors", notes)


def checkpoint(folder: Path, version: int) -> Write:
    state = {"weights": torch.full((400,), float(version)), "step": version}
    return lambda: save_state(state, folder / "state.safetensors")


def q_table(folder: Path, version: int) -> Write:
    agent = TabularQ()
    agent.table = {(float(k), 0.0): [0.0, version, 0.0] for k in range(40)}
    return lambda: agent.save(folder / "table.json")


def law(folder: Path, version: int) -> Write:
    return lambda: make_law(floor=0.5 + version / 10).save(folder / "law.json")


def recorded_runs(folder: Path, version: int) -> Write:
    random = np.random.default_rng(version)
    curves: dict[str, Any] = {name: random.random(400) for name in ("rates", *CURVES)}
    run = RecordedRun(name="run", seed=0, iterations=np.arange(400), **curves)
    return lambda: save_runs(folder / "runs.npz", [run])


def model(folder: Path, version: int) -> Write:
    """The stable-baselines3 file of `deep_rl.py`, without training."""
    import gymnasium as gym
    from stable_baselines3 import A2C

    env = gym.make("CartPole-v1")
    agent = DeepAgent()
    agent.model = A2C("MlpPolicy", env, seed=version, device="cpu")
    return lambda: agent.save(folder / "model.zip")


KINDS: dict[str, Callable[[Path, int], Write]] = {
    write.__name__: write
    for write in (
        results, job, archive, summaries, report, picture, events, schedule, policy,
        checkpoint, q_table, law, recorded_runs, model,
    )
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """Return name and bytes of every file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def survive_full_disk(kind: str, folder: Path, elsewhere: Path, full: Full) -> None:
    """Check a kind of file: the second version meets a full disk, then finds room.

    Event files and models hold the time of writing: the caller stops `time.time`.

    Args:
        kind: A key of `KINDS`.
        folder: Where `full` leaves no room.
        elsewhere: A folder with room, for the undisturbed files.
        full: Returns a context in which there is no room for the second version.
    """
    write = KINDS[kind]
    expected = []
    for version in (0, 1):
        write(elsewhere / kind, version)()
        expected.append(contents(elsewhere / kind))
    assert expected[0] != expected[1]
    write(folder / kind, 0)()
    assert contents(folder / kind) == expected[0]
    second = write(folder / kind, 1)
    with full():
        try:
            second()
            error = None
        except OSError as caught:
            error = caught
    assert error is not None, "the disk was not full"
    assert error.errno is not None
    # The message names the cause and a file that is as it was before.
    assert error.strerror is not None
    assert error.strerror.endswith("; the file is unchanged")
    named = str(Path(error.filename).relative_to(folder / kind))
    after = contents(folder / kind)
    assert after[named] == expected[0][named]
    assert after.keys() == expected[0].keys()
    for name, content in after.items():  # of several files, some can be new
        assert content in (expected[0][name], expected[1][name]), name
    write(folder / kind, 1)()
    assert contents(folder / kind) == expected[1]
