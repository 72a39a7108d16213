"""Files that the scripts of benchmarks/ read: refused with a reason, or usable."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import export_minari
from benchmarks.comparison import entry
from benchmarks.comparison.jobs import FORMAT, Job, load_record
from benchmarks.controller.tuning_free import Args, make_suite
from benchmarks.results_file import read_results
from lr_gym.mdp.instances import HELD_OUT
from lr_gym.surrogate.runs import load_runs, save_runs
from tests.helpers.fuzzing import (
    WORDS,
    damaged_bytes,
    damaged_json,
    fuzz,
    refused,
    written,
)
from tests.helpers.laws import make_constants, planted_runs

JOB = Job("constant", "markov", "test", (0, 1), (1e-3, 1e-3), {"scale": "tiny"})
RUN: dict[str, Any] = {
    "seed": 0,
    "learning_rate": 1e-3,
    "metrics": {
        "final_train_loss": 3.0,
        "best_val_loss": 2.9,
        "final_val_loss": 3.0,
        "diverged": False,
        "test_loss": 3.0,
        "train_seconds": 1.0,
    },
    "curves": {
        "iteration": [0, 10, 20],
        "val_loss": [3.5, 3.2, 3.0],
        "train_loss": [3.4, 3.1],
        "learning_rate": [1e-3, 1e-3],
        "optimizer_lr": [1e-3, 1e-3],
        "action": [1, 1],
        "reward": [0.3, 0.2],
    },
}
RECORD: dict[str, Any] = {
    "format": FORMAT,
    "job": json.loads(json.dumps(asdict(JOB))),
    "inputs": {"code": "0", "agent": None},
    "runs": [RUN, {**RUN, "seed": 1}],
    "seconds": 2.0,
    "history": [],
    "trainings": 2,
    "spent_learning": 0,
    "training": {},
    "settings": {},
    "device": "cpu",
    "precision": "float32",
    "corpus": {"name": "markov", "sha256": "0"},
    "provenance": {},
}


@fuzz(60)
@given(content=damaged_json(RECORD))
def test_a_damaged_record_is_refused_or_usable(content: bytes) -> None:
    folder = written("record.json", b"").parent / "comparison"
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    path = folder / "jobs" / "record.json"
    path.write_bytes(content)

    def use() -> None:
        record = load_record(path, JOB)
        assert record is not None
        for run in record["runs"]:
            assert float(run["metrics"]["final_val_loss"]) >= 0.0
            assert run["curves"]["learning_rate"][0] > 0.0

    def export() -> None:
        records = export_minari.read_records(folder)
        pairs = [(record, run) for record in records for run in record["runs"]]
        assert pairs
        for record, run in pairs:
            assert np.isfinite(export_minari.episode(run)["rewards"]).all()
            export_minari.metadata(record, run)

    refused(use)
    refused(export)


@fuzz(40)
@given(content=damaged_json({"markov-tiny": {"a": 1.0}}))
def test_a_damaged_result_file_is_refused_or_read(content: bytes) -> None:
    path = written("result.json", content)
    refused(lambda: dict(read_results(path)))


INSTANCES = [asdict(instance) for instance in HELD_OUT[:2]]
SETTINGS = {"learning_rate": 1e-3, "dense_interval": 5, "reward": "final_loss"}


@fuzz(40)
@given(content=damaged_json(INSTANCES))
def test_a_damaged_list_of_instances_is_refused_or_read(content: bytes) -> None:
    path = written("instances.json", content)
    refused(lambda: make_suite(Args(instances=path)))


@fuzz(40)
@given(
    content=damaged_json(SETTINGS).map(lambda content: content.decode(errors="replace"))
)
def test_damaged_settings_are_refused_or_read(content: str) -> None:
    refused(lambda: make_suite(Args(settings=content)))
    arguments = entry.Args(settings=content, agents=("constant",))
    refused(lambda: entry.make_tasks(arguments, ("constant",)))


@fuzz(30)
@given(
    peaks=st.none() | st.lists(st.floats() | st.sampled_from([0.5, 1.0, 1e308])),
    count=st.integers() | st.sampled_from([10**9, 10**400]),
    name=WORDS | st.sampled_from(["os:getcwd", "x.json", ".py:x", ":", "."]),
)
def test_arguments_of_a_comparison(
    peaks: list[float] | None, count: int, name: str
) -> None:
    chosen = None if peaks is None else tuple(peaks)
    protocols: list[Any] = []
    arguments = entry.Args(
        peaks=chosen, seeds=count, agents=(name,), tune_seeds=count, learners=count
    )
    if not refused(lambda: protocols.append(entry.make_protocol(arguments))):
        assert all(0.0 < peak < np.inf for peak in protocols[0].peaks)
    refused(lambda: entry.make_tasks(arguments, (name,)))


@lru_cache
def recorded_runs() -> dict[str, Any]:
    """Return the arrays of a valid file of recorded runs."""
    path = written("runs.npz", b"")
    save_runs(path, planted_runs(make_constants(), 0)[:2])
    with np.load(path) as file:
        return dict(file)


@st.composite
def run_files(draw: st.DrawFn) -> bytes:
    """Draw a file of recorded runs, damaged in its bytes or its arrays."""
    arrays = dict(recorded_runs())
    name = draw(st.sampled_from(sorted(arrays)))
    old = arrays[name]
    choices: list[Any] = [
        *(old[:1], old[..., :-1], old.astype(str), old[None], np.array(1), np.zeros(0)),
        *(np.array([1j, 2]), np.array(["a", "b"]), np.array([[]])),
    ]
    kind = draw(st.sampled_from(["bytes", "array", "number", "delete", "npy"]))
    content = io.BytesIO()
    if kind == "npy":
        np.save(content, old)
        return content.getvalue()
    if kind == "array":
        arrays[name] = choices[draw(st.integers(0, len(choices) - 1))]
    elif kind == "number" and old.dtype.kind in "fi":
        arrays[name] = old.astype(np.float64)
        arrays[name].flat[draw(st.integers(0, old.size - 1))] = draw(st.floats())
    elif kind == "delete":
        del arrays[name]
    np.savez(content, **arrays)
    return (
        draw(damaged_bytes(content.getvalue()))
        if kind == "bytes"
        else content.getvalue()
    )


@fuzz(40)
@given(content=run_files())
def test_a_damaged_file_of_runs_is_refused_or_read(content: bytes) -> None:
    path = written("runs.npz", content)
    refused(lambda: load_runs(path))
