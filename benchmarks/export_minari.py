"""Export the runs of a comparison as an offline dataset in Minari's format.

    python -m benchmarks.export_minari results/compare/shakespeare-tiny

Every run of every finished job becomes an episode: tuning, tests and controls. All
methods have the same format. The dataset is written to Minari's folder,
`MINARI_DATASETS_PATH` or one in the user's home; `minari.load_dataset` reads it.

- observations, (T + 1, 2) float32: validation loss in nats per character, learning rate
- actions, (T, 1) float32: log2 of the factor on the learning rate
- rewards, (T,) float64: reduction of the validation loss
- terminations: true at the last step, when the budget is spent or the run diverged
- truncations: false
- infos: optimizer_lr, (T + 1,), the rate of the last update, 0 before the first
- metadata of an episode: label, task, phase, base_schedule, allow_undo, diverged, seed

The learning rate is the agent's. If `base_schedule` is not ``constant``, or another
optimizer trained, the optimizer used `optimizer_lr` instead. If `allow_undo` is true,
weights can have been restored, which no action shows. To learn the environment's
dynamics, leave these episodes out.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.agent import LREnv, make_env
from agents.command_line import parse_command_line
from benchmarks.comparison.fixed_plan import one_line_job_errors
from benchmarks.comparison.jobs import env_name, read_record
from benchmarks.comparison.summary import label_of, task_of
from lr_gym.files import only_process
from lr_gym.mdp.observations import LOSS_BOUND

DATASET_ID = re.compile(r"([-_\w]+/)*[-_\w]+-v\d+")
FEATURES = ("val_loss", "learning_rate")
DATASETS_PATH = "MINARI_DATASETS_PATH"
# Minari warns about metadata that it recommends and that not all datasets have.
EXPECTED_WARNINGS = (
    r"`(author_email|code_permalink|eval_env)` is set to None|env_spec is None"
)

Record = Mapping[str, Any]


@dataclass
class Args:
    """Export a comparison for offline reinforcement learning."""

    folder: Path
    """Output folder of a comparison, with its jobs."""
    dataset: str | None = None
    """Id of the dataset; default lrtuning/ENV-SCALE-v0."""
    author: str = "lr-gym contributors"
    """Author, kept with the dataset."""
    author_email: str | None = None
    """Author's address, kept with the dataset."""
    code_permalink: str | None = None
    """URL of the code that made the runs, kept with the dataset."""


def read_records(folder: Path) -> list[Record]:
    """Return the finished jobs in `folder`, in the order of their names.

    Raises:
        FileNotFoundError: There is no finished job.
        ValueError: A file is not a record.
    """
    paths = sorted((folder / "jobs").glob("*.json"))
    if not paths:
        raise FileNotFoundError(
            f"{folder}/jobs holds no finished job: pass the output folder of "
            "compare_agents.py"
        )
    return [read_record(path) for path in paths]


def episode(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return one run as the arrays of an episode.

    Raises:
        ValueError: A learning rate is 0.
    """
    curves = run["curves"]
    losses = np.array(curves["val_loss"])  # (T + 1,)
    rates = np.array([run["learning_rate"], *curves["learning_rate"]])  # (T + 1,)
    if not (rates > 0.0).all():
        raise ValueError("an action is a factor on the learning rate, but one is 0")
    steps = len(losses) - 1
    return {
        "observations": np.stack([losses, rates], axis=1).astype(np.float32),
        "actions": np.log2(rates[1:] / rates[:-1])[:, None].astype(np.float32),
        "rewards": losses[:-1] - losses[1:],
        "terminations": np.arange(1, steps + 1) == steps,
        "truncations": np.zeros(steps, dtype=bool),
        "infos": {"optimizer_lr": np.array([0.0, *curves["optimizer_lr"]])},
    }


def metadata(record: Record, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an episode, without its seed."""
    return {
        "label": label_of(record["job"]),
        "task": task_of(record["job"]),
        "phase": record["job"]["phase"],
        "base_schedule": record["settings"].get("base_schedule", "constant"),
        "allow_undo": bool(record["settings"].get("allow_undo", False)),
        "diverged": bool(run["metrics"]["diverged"]),
    }


def observation_space(episodes: Sequence[Mapping[str, Any]]) -> spaces.Box:
    """Return the environment's space, widened if an observation is outside it."""
    rate = max(float(e["observations"][:, 1].max()) for e in episodes)
    high = np.array([LOSS_BOUND, max(1.0, rate)], dtype=np.float32)
    return spaces.Box(np.zeros(2, dtype=np.float32), high)


def action_space(episodes: Sequence[Mapping[str, Any]]) -> spaces.Box:
    """Return the environment's space, widened if an action is outside it."""
    largest = max(float(np.abs(e["actions"]).max()) for e in episodes)
    bound = max(1.0, float(np.ceil(largest - 1e-6)))
    return spaces.Box(-bound, bound, (1,), np.float32)


def shared_env(records: Sequence[Record]) -> LREnv | None:
    """Return the environment of the records; `None` if they have several."""
    jobs = [record["job"] for record in records]
    first = jobs[0]
    same = all(
        (j["env"], j["settings"]) == (first["env"], first["settings"]) for j in jobs
    )
    if not same:
        return None
    format_settings = {
        "action_type": "continuous",
        "features": FEATURES,
        "allow_undo": False,
    }
    return make_env(first["env"], **{**first["settings"], **format_settings})


def default_id(records: Sequence[Record]) -> str:
    """Return an id made of the corpora and scales in `records`."""
    jobs = [record["job"] for record in records]
    names = [env_name(job["env"]) for job in jobs]
    names += [job["settings"]["scale"] for job in jobs]
    text = "-".join(dict.fromkeys(names))
    return f"lrtuning/{re.sub(r'[^-_0-9A-Za-z]', '-', text)}-v0"


def export(args: Args) -> Any:  # noqa: ANN401 - minari has no types
    """Write the dataset; return it as `minari.load_dataset` would.

    Raises:
        ImportError: The extra is missing; the message names it.
        FileNotFoundError: There are no finished jobs.
        ValueError: A record is damaged, or the dataset's id is malformed or taken.
        OSError: The dataset cannot be written; nothing is left of it.
    """
    try:
        import h5py  # noqa: F401 - minari writes with it
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise ImportError(
            "export_minari.py needs minari: pip install 'lr-gym[minari]'"
        ) from error
    records = read_records(args.folder)
    dataset_id = args.dataset or default_id(records)
    if not DATASET_ID.fullmatch(dataset_id):
        raise ValueError(f"--dataset must be like lrtuning/name-v0, got {dataset_id!r}")
    pairs = [(record, run) for record in records for run in record["runs"]]
    episodes = [episode(run) for _, run in pairs]
    buffers = [
        EpisodeBuffer(id=number, seed=run["seed"], **arrays)
        for number, ((_, run), arrays) in enumerate(zip(pairs, episodes, strict=True))
    ]
    env = shared_env(records)
    with staged(dataset_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED_WARNINGS, UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=env,
            algorithm_name=", ".join(
                dict.fromkeys(label_of(r["job"]) for r in records)
            ),
            author=args.author,
            author_email=args.author_email,
            code_permalink=args.code_permalink,
            observation_space=observation_space(episodes),
            action_space=action_space(episodes),
            description=(
                "Training runs of a character-level language model whose learning rate "
                "is controlled. Observation: validation loss (nats per character), "
                "learning rate. Action: log2 of the factor on the learning rate. "
                "Reward: reduction of the validation loss. Per episode: label, task, "
                "phase, base_schedule, diverged, seed."
            ),
            data_format="hdf5",
        )
        dataset.storage.update_episode_metadata([metadata(*pair) for pair in pairs])
    if env is not None:
        env.close()
    return minari.load_dataset(dataset_id)


@contextmanager
def staged(dataset_id: str) -> Iterator[None]:
    """Let Minari write into a hidden folder; move the dataset when it is whole.

    Raises:
        ValueError: There is such a dataset.
        OSError: It cannot be written; nothing is left of it.
    """
    from minari.storage import get_dataset_path

    root = get_dataset_path()
    if (root / dataset_id).exists():
        raise ValueError(
            f"dataset {dataset_id!r} already exists in {root}: choose another --dataset"
        )
    staging = root / ".lr_gym-export"
    before = os.environ.get(DATASETS_PATH)
    with only_process(root / ".lr_gym-export.lock", wait=True):
        shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
        os.environ[DATASETS_PATH] = str(staging)
        try:
            yield
            _publish(staging, root, dataset_id)
        except (OSError, RuntimeError) as error:  # HDF5 raises either
            raise OSError(f"{root / dataset_id} cannot be written: {error}") from error
        finally:
            if before is None:
                del os.environ[DATASETS_PATH]
            else:
                os.environ[DATASETS_PATH] = before
            shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, root: Path, dataset_id: str) -> None:
    """Move the dataset, with the folders of its name that `root` lacks."""
    names = Path(dataset_id).parts
    for depth in range(1, len(names) + 1):
        place = Path(*names[:depth])
        if depth == len(names) or not (root / place).exists():
            (staging / place).rename(root / place)
            return


def main(args: Args) -> None:
    """Export; print the dataset's id, size and path."""
    with one_line_job_errors():
        dataset = export(args)
    print(
        f"{dataset.spec.dataset_id}: {dataset.total_episodes} episodes, "
        f"{dataset.total_steps} steps, in {dataset.storage.data_path}"
    )


if __name__ == "__main__":
    import tyro

    config = (tyro.conf.PositionalRequiredArgs,)
    main(parse_command_line(Args, __doc__, config=config))
