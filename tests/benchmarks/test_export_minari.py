"""A comparison as an offline dataset: the file holds the recorded runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.comparison.jobs import Job, run_job, save_record
from benchmarks.export_minari import Args, export, main, read_records
from tests.helpers.small import SMALL
from tests.helpers.small_disk import quota

ID = "lrtuning/small-v0"
SETTINGS = {"scale": "tiny", **SMALL}
JOBS = (
    Job("cosine", "markov", "tune", (7, 7), (1e-3, 2e-3), SETTINGS),
    Job("q_paper", "markov", "test", (0, 1), (1e-3, 1e-3), SETTINGS),
    Job("q_improved", "markov", "learn", (0,), settings=SETTINGS, budget=2),
    Job(
        "q_paper",
        "markov",
        "open_loop",
        (0,),
        settings=SETTINGS,
        script=((1e-3, 2e-3, 1e-3, 5e-4),),
    ),
)


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's output: four jobs, six runs."""
    folder = tmp_path_factory.mktemp("compare")
    for job in JOBS:
        save_record(folder / "jobs" / job.file_name, run_job(job))
    return folder


@pytest.fixture(autouse=True)
def fixture_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where minari keeps its datasets, for one test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def test_a_dataset_comes_back_as_it_was_run(folder: Path, tmp_path: Path) -> None:
    import minari

    export(Args(folder, ID))
    assert (tmp_path / "datasets" / ID).is_dir()
    dataset = minari.load_dataset(ID)
    runs = [run for record in read_records(folder) for run in record["runs"]]
    assert dataset.total_episodes == len(runs) == 6
    assert dataset.total_steps == 6 * 4
    for episode, run in zip(dataset.iterate_episodes(), runs, strict=True):
        curves = run["curves"]
        losses, rates = episode.observations.T
        assert episode.observations.dtype == episode.actions.dtype == np.float32
        assert losses == pytest.approx(curves["val_loss"])
        assert rates == pytest.approx([run["learning_rate"], *curves["learning_rate"]])
        # The actions, applied in turn, lead from the first rate to every other.
        walk = rates[0] * 2.0 ** np.cumsum(episode.actions[:, 0])
        assert walk == pytest.approx(rates[1:], rel=1e-5)
        total = curves["val_loss"][0] - curves["val_loss"][-1]
        assert episode.rewards.sum() == pytest.approx(total)
        assert episode.terminations.tolist() == [False] * 3 + [True]
        assert not episode.truncations.any()
        assert episode.infos["optimizer_lr"][1:] == pytest.approx(
            curves["optimizer_lr"]
        )
        for space, arrays in (
            (dataset.observation_space, episode.observations),
            (dataset.action_space, episode.actions),
        ):
            assert all(space.contains(array) for array in arrays)


def test_episodes_say_whose_they_are(folder: Path) -> None:
    dataset = export(Args(folder, ID))
    facts = list(dataset.storage.get_episode_metadata(range(6)))
    labels = {(fact["label"], fact["phase"], fact["base_schedule"]) for fact in facts}
    assert labels == {
        ("cosine", "tune", "cosine"),
        ("q_paper", "test", "constant"),
        ("q_improved", "learn", "constant"),
        ("q_paper (open_loop)", "open_loop", "constant"),
    }
    assert {fact["task"] for fact in facts} == {"markov tiny"}
    assert sorted(fact["seed"] for fact in facts) == [0, 0, 0, 1, 7, 7]
    assert not any(fact["diverged"] for fact in facts)


def test_the_environment_comes_with_the_data(folder: Path) -> None:
    dataset = export(Args(folder, ID))
    env = dataset.recover_environment()
    observation, _ = env.reset(seed=0)
    assert dataset.observation_space.contains(observation)
    assert env.action_space == dataset.action_space
    assert env.step(np.array([-1.0], dtype=np.float32))[4]["iteration"] == 2


def test_a_diverged_run_is_a_short_episode(tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_lr": 1e30}
    job = Job("constant", "markov", "test", (0,), (1e29,), settings)
    other = Job("constant", "text.txt", "test", (0,), (1e-3,), settings)
    record = run_job(job)
    save_record(tmp_path / "jobs" / "a.json", record)
    copied = {**record, "job": {**record["job"], "env": other.env}}
    save_record(tmp_path / "jobs" / "b.json", copied)  # two tasks: no one environment
    dataset = export(Args(tmp_path))
    assert dataset.spec.dataset_id == "lrtuning/markov-text-tiny-v0"
    assert dataset.spec.env_spec is None
    episode = dataset[0]
    assert len(episode.rewards) == 1
    assert episode.terminations.tolist() == [True]
    assert dataset.observation_space.contains(episode.observations[-1])
    (fact,) = dataset.storage.get_episode_metadata([0])
    assert fact["diverged"]


def test_the_script_says_where_it_wrote(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(Args(folder))
    assert "lrtuning/markov-tiny-v0: 6 episodes, 24 steps" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="already exists"):
        main(Args(folder))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# HDF5 tries again to write when its objects are freed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_nothing_and_the_export_can_be_repeated(
    folder: Path, tmp_path: Path
) -> None:
    datasets = tmp_path / "datasets"
    export(Args(folder, "lrtuning/other-v0"))
    before = contents(datasets)
    with (
        quota(2_000),
        pytest.raises(OSError, match=r"datasets/lrtuning/small-v0 cannot be written"),
    ):
        export(Args(folder, ID))
    assert contents(datasets) == before
    assert export(Args(folder, ID)).total_episodes == 6


def test_the_leftover_of_a_killed_export_goes_with_the_next_one(
    folder: Path, tmp_path: Path
) -> None:
    staging = tmp_path / "datasets" / ".lr_gym-export"
    (staging / ID / "data").mkdir(parents=True)
    (staging / ID / "data" / "main_data.hdf5").write_bytes(b"half")
    assert export(Args(folder, ID)).total_episodes == 6
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["lrtuning"]


def spoiled(folder: Path, content: str) -> Path:
    (folder / "jobs").mkdir()
    (folder / "jobs" / "a.json").write_text(content)
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("half", "is not a whole record"),
        ("[]", "is not a whole record"),
        (json.dumps({"format": "other"}), "format must be .* got 'other'"),
    ],
)
def test_a_damaged_record_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export(Args(spoiled(tmp_path, content), ID))


@pytest.mark.parametrize("name", ["small", "a b-v0", "/etc-v0", "../up-v0"])
def test_an_id_that_minari_would_not_take(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="--dataset must be like"):
        export(Args(folder, name))


def test_there_must_be_something_to_export(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no finished job"):
        export(Args(tmp_path, ID))


def test_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "minari", missing)
    with pytest.raises(ImportError, match=r"pip install 'lr-gym\[minari\]'"):
        export(Args(folder, ID))
