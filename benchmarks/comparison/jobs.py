"""Jobs: runs of equal shape in one population, with one file as their record."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from agents.agent import ENVS, Agent, make_env, make_envs, run_population
from agents.optimizers import OptimizerTrainer
from agents.replay import ActionReplay, OpenLoop
from benchmarks.comparison.inputs import current_inputs
from benchmarks.comparison.methods import Method, find_method
from benchmarks.provenance import provenance
from lr_gym.config import TrainingConfig, preset
from lr_gym.envs.factory import read_settings
from lr_gym.envs.trainer_choice import EPISODE_FIELDS
from lr_gym.envs.vector import LRTuningVectorEnv
from lr_gym.files import parse_json, read_file, write_text
from lr_gym.mdp.config import MDPConfig
from lr_gym.trainers.population import PopulationTrainer
from lr_gym.validation import (
    check_boolean,
    check_complete,
    check_integer,
    check_mapping,
    check_real,
    field_names,
)

FORMAT = "lr-gym job 1"
SAMPLE_TOKENS = 500  # the paper's inference measurement: this many characters,
SAMPLE_TEMPERATURE = 0.8  # at this temperature,
SAMPLE_TOP_K = 200  # among this many
CURVES_FROM_RESET = ("iteration", "val_loss")
CURVES = ("train_loss", "learning_rate", "optimizer_lr", "action", "reward")
METRICS = ("final_train_loss", "best_val_loss", "final_val_loss", "diverged")
LEARNING_SEED = 2_000_000  # far from those of tuning and of testing


@dataclass(frozen=True)
class Job:
    """What some runs are; `inputs.py` covers the code and the files that it names.

    Attributes:
        method: A name that `find_method` knows; for a control, the method it replays.
        env: A built-in corpus or a text file's path.
        phase: ``tune`` and ``test`` run the method from `learning_rates`; ``learn``
            lets it learn for `budget` runs and then tests it; ``open_loop`` and
            ``shuffled`` replay `script`.
        seeds: One per training run.
        learning_rates: Initial rates, one per run; empty means the task's.
        settings: Further keywords of `gym.make`, ``scale`` among them; they override
            the method's.
        replicate: Seed of the learner.
        budget: Trainings to learn from.
        script: Per run the learning rates or the actions to replay.
        samples: Texts generated to measure inference speed.
    """

    method: str
    env: str
    phase: str
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    replicate: int = 0
    budget: int = 0
    script: tuple[tuple[float, ...], ...] = ()
    samples: int = 0

    @property
    def file_name(self) -> str:
        """A name that is unique to the job."""
        words = [self.method, env_name(self.env), self.settings["scale"], self.phase]
        text = "-".join(words)
        readable = "".join(c if c.isalnum() or c in "-_" else "-" for c in text)
        content = json.dumps(asdict(self), sort_keys=True)
        return f"{readable}-{hashlib.sha256(content.encode()).hexdigest()[:10]}.json"


def env_name(env: str) -> str:
    """Return the name of a built-in corpus, or the stem of a text file."""
    return env if env in ENVS else Path(env).stem


def run_job(job: Job) -> dict[str, Any]:
    """Run the job; return its record, ready for JSON."""
    begun = time.perf_counter()
    method = find_method(job.method)
    inputs = current_inputs(job.method)
    agents, trained, spent = _agents(job, method)
    settings = {**agents[0].settings, **job.settings}
    started = time.perf_counter()
    runs: list[dict[str, Any]] = []
    step = 1 if method.alone else len(agents)
    for first in range(0, len(agents), step):
        part = slice(first, first + step)
        trainer, part_runs = _run_part(job, method, agents[part], part, settings)
        runs += part_runs
    seconds = time.perf_counter() - started
    for run in runs:
        run["metrics"]["train_seconds"] = seconds / len(runs)
    diverged = runs[0]["metrics"]["diverged"]
    if job.samples and not diverged:  # a diverged model cannot generate text
        speed = inference_speed(trainer, job.samples)
        runs[0]["metrics"]["inference_tokens_per_second"] = speed
    return {
        "format": FORMAT,
        "job": asdict(job),
        "inputs": inputs,
        "runs": runs,
        "seconds": time.perf_counter() - begun,
        "history": list(trained.history) if trained else [],
        "trainings": spent + len(runs) * method.cost,
        "spent_learning": spent,
        "training": asdict(trainer.config),
        "settings": {k: v for k, v in settings.items() if k != "scale"},
        "device": str(trainer.device),
        "precision": trainer.precision,
        "corpus": trainer.corpus_facts,
        "provenance": provenance(),
    }


def _agents(job: Job, method: Method) -> tuple[list[Agent], Agent | None, int]:
    """Return an agent per run, the agent that learned, and the trainings it spent."""
    if job.phase == "open_loop":
        settings = method.make(0).settings
        return [OpenLoop(curve, settings) for curve in job.script], None, 0
    if job.phase == "shuffled":
        settings = method.make(0).settings
        scripts = [[int(action) for action in actions] for actions in job.script]
        return [ActionReplay(actions, settings) for actions in scripts], None, 0
    if job.phase != "learn":
        return [method.make(seed) for seed in job.seeds], None, 0
    learner = method.make(job.replicate)
    env = make_env(job.env, **{**learner.settings, **job.settings})
    env.reset(seed=LEARNING_SEED + job.replicate)
    learner.train(env, job.budget)
    spent = learner.training_episodes
    return [copy.copy(learner) for _ in job.seeds], learner, spent


def _run_part(
    job: Job,
    method: Method,
    agents: Sequence[Agent],
    part: slice,
    settings: dict[str, Any],
) -> tuple[PopulationTrainer, list[dict[str, Any]]]:
    """Run a part of the job's runs in one population."""
    seeds = job.seeds[part]
    envs = _make_envs(job, method, len(seeds), settings)
    trainer = envs.trainer
    if not isinstance(trainer, PopulationTrainer):
        raise TypeError(f"a comparison needs real training, got {trainer}")
    rates = list(job.learning_rates[part]) or [
        agent.learning_rate or envs.episodes.training.learning_rate for agent in agents
    ]
    trajectories = run_population(
        envs,
        agents,
        seeds,
        rates,
        learning=job.phase != "learn",
    )
    tested = job.phase != "tune"  # tuning must not use the test split
    test_losses = trainer.evaluate("test", exact=True).tolist() if tested else []
    runs = []
    for member, (seed, trajectory) in enumerate(zip(seeds, trajectories, strict=True)):
        final = trajectory[-1]
        metrics = {
            "final_train_loss": final["train_loss"],
            "best_val_loss": final["best_val_loss"],
            "final_val_loss": final["val_loss"],
            "diverged": final["diverged"],
        }
        if tested:
            # The loss of a diverged run is the threshold of divergence.
            metrics["test_loss"] = (
                final["val_loss"] if final["diverged"] else test_losses[member]
            )
        runs.append(
            {
                "seed": seed,
                "learning_rate": rates[member],
                "metrics": metrics,
                "curves": curves(trajectory),
            }
        )
    return trainer, runs


def curves(trajectory: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return a trajectory by column.

    ``iteration`` and ``val_loss`` have one entry more than the others: that of the
    reset, before the first decision.
    """
    columns = {key: [info[key] for info in trajectory] for key in CURVES_FROM_RESET}
    return columns | {key: [info[key] for info in trajectory[1:]] for key in CURVES}


def _make_envs(
    job: Job, method: Method, size: int, settings: dict[str, Any]
) -> LRTuningVectorEnv:
    """Return the environment of `size` runs."""
    if method.optimizer is None:
        return make_envs(job.env, size, **settings)
    # The same decision process over a trainer with another optimizer.
    others = {key: value for key, value in settings.items() if key != "scale"}
    training, config, corpus = read_settings(settings["scale"], job.env, others)
    if config.loss_floor is None:
        config = replace(config, loss_floor=corpus.entropy_rate)
    return make_envs(
        job.env,
        size,
        trainer=OptimizerTrainer(training, corpus, method.optimizer.make),
        **{name: getattr(training, name) for name in EPISODE_FIELDS},
        **{name: getattr(config, name) for name in field_names(MDPConfig)},
    )


def inference_speed(trainer: PopulationTrainer, samples: int) -> float:
    """Return characters generated per second, one text at a time, as the paper did."""
    model = trainer.model(0)
    generator = torch.Generator(device=trainer.device).manual_seed(0)
    prompt = torch.zeros(1, 1, dtype=torch.int64, device=trainer.device)
    started = time.perf_counter()
    for _ in range(samples):
        model.generate(
            prompt,
            SAMPLE_TOKENS,
            temperature=SAMPLE_TEMPERATURE,
            top_k=SAMPLE_TOP_K,
            generator=generator,
        )
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return samples * SAMPLE_TOKENS / (time.perf_counter() - started)


def task_learning_rate(job: Job) -> float:
    """Return the task's initial learning rate: the preset's, or its settings'."""
    names = set(field_names(TrainingConfig)) - {"scale"}
    training = {k: v for k, v in job.settings.items() if k in names}
    return preset(job.settings["scale"], job.env, **training).learning_rate


def load_record(path: Path, job: Job) -> dict[str, Any] | None:
    """Return the record of `job`, or `None` if it has not been run.

    Raises:
        ValueError: The file is damaged, or holds another job.
    """
    if not path.exists():
        return None
    record = read_record(path)
    if record["job"] != json.loads(json.dumps(asdict(job))):
        raise ValueError(f"{path} holds another job; choose another --out")
    return record


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a file.

    Raises:
        OSError: The file is absent or cannot be read.
        ValueError: The file is not a whole record.
    """
    try:
        record = parse_json(read_file(path))
        _check_record(record)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a whole record ({error}); delete it to repeat that job"
        ) from error
    checked: dict[str, Any] = record
    return checked


def _check_record(record: Any) -> None:  # noqa: ANN401 - any JSON
    """Raise TypeError or ValueError unless `record` has what a comparison reads."""
    check_mapping("the record", record)
    if record.get("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}, got {record.get('format')!r}")
    for name in ("job", "settings", "training", "corpus", "provenance"):
        check_mapping(name, record.get(name))
    job = record["job"]
    check_complete("job", job, field_names(Job))
    check_mapping("settings of the job", job["settings"])
    for name in ("method", "env", "phase"):
        if not isinstance(job[name], str):
            raise TypeError(f"{name} of the job must be a string, got {job[name]!r}")
    if not isinstance(job["settings"].get("scale"), str):
        raise ValueError("settings of the job must hold scale, a string")
    for name in ("seconds", "trainings"):
        check_real(name, record.get(name), 0.0)
    runs = record.get("runs")
    if not isinstance(runs, list) or not runs:
        raise ValueError("runs must be a list of one or more")
    for run in runs:
        check_mapping("a run", run)
        check_integer("seed of a run", run.get("seed"), 0, 2**63 - 1)
        check_real("learning_rate of a run", run.get("learning_rate"), 0.0)
        _check_metrics(run.get("metrics"))
        _check_curves(run.get("curves"))


def _check_metrics(metrics: Any) -> None:  # noqa: ANN401 - any JSON
    check_mapping("metrics", metrics)
    missing = [name for name in METRICS if name not in metrics]
    if missing:
        raise ValueError(f"metrics lack {', '.join(missing)}")
    for name, value in metrics.items():
        if name == "diverged":
            check_boolean(name, value)
        else:
            check_real(name, value, 0.0)


def _check_curves(columns: Any) -> None:  # noqa: ANN401 - any JSON
    check_mapping("curves", columns)
    lengths = []
    for name in (*CURVES_FROM_RESET, *CURVES):
        column = columns.get(name)
        if not isinstance(column, list):
            raise TypeError(f"curve {name} must be a list, got {column!r}")
        for entry in column:
            # An action that is continuous has several numbers.
            for number in entry if isinstance(entry, list) else (entry,):
                check_real(f"a number of curve {name}", number, -math.inf)
        lengths.append(len(column) - (name in CURVES_FROM_RESET))
    if len(set(lengths)) > 1 or lengths[0] < 1:
        raise ValueError(f"the curves have other lengths than {len(columns['reward'])}")


def save_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record atomically."""
    write_text(path, json.dumps(record, allow_nan=False) + "\n")
