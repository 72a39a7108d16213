"""One job of a comparison: an agent on a seed, run once, kept as one JSON file."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agents.agent import Agent, make_env, run_episode, unwrap
from agents.baselines import BASELINES
from agents.deep_rl import ALGORITHMS, DeepAgent
from agents.tabular_q import TabularQ
from benchmarks.provenance import provenance
from lr_gym.files import write_text
from lr_gym.training import PopulationTrainer

FORMAT = "lr-gym run 1"
SAMPLE_TOKENS = 500  # the paper's inference measurement: this many characters,
SAMPLE_TEMPERATURE = 0.8  # at this temperature,
SAMPLE_TOP_K = 200  # among this many

AGENTS: dict[str, Callable[[int], Agent]] = {
    **BASELINES,
    "q_paper": partial(TabularQ, protocol="paper"),
    "q_improved": partial(TabularQ, protocol="improved"),
    **{name: partial(DeepAgent, algo=name) for name in ALGORITHMS},
}


@dataclass(frozen=True)
class Job:
    """Everything that determines a run, and so its result.

    Attributes:
        agent: A name in `AGENTS`, or ``module:Class`` or ``file.py:Class``, constructed
            with the seed.
        seed: Of the training run that judges the agent, and of the agent itself.
        env: A built-in corpus or a text file's path.
        settings: Further keywords of `gym.make`, ``scale`` among them; they win over
            the agent's own.
        training_episodes: Runs that an agent which learns may spend beforehand.
        samples: Texts generated to measure inference speed.
    """

    agent: str
    seed: int
    env: str
    settings: dict[str, Any] = field(default_factory=dict)
    training_episodes: int = 0
    samples: int = 1

    @property
    def file_name(self) -> str:
        """A name of its own among the jobs of one comparison."""
        agent = "".join(c if c.isalnum() or c in "-_" else "-" for c in self.agent)
        return f"{agent}-seed{self.seed}.json"


def make_agent(name: str, seed: int) -> Agent:
    """Construct the agent that `name` means.

    Raises:
        ValueError: There is no such agent; the message lists those there are.
    """
    if name in AGENTS:
        return AGENTS[name](seed)
    source, separator, attribute = name.rpartition(":")
    if not separator:
        raise ValueError(
            f"agent {name!r} is unknown; use one of {', '.join(AGENTS)}, or your own "
            "as module:Class or file.py:Class"
        )
    try:
        if source.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            if spec is None or spec.loader is None:
                raise ImportError(f"{source} cannot be imported")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
        agent: Agent = getattr(module, attribute)(seed)
    except (ImportError, AttributeError, FileNotFoundError) as error:
        raise ValueError(f"agent {name!r} cannot be loaded: {error}") from error
    return agent


def run_job(job: Job, on_step: Callable[[Any], object] | None = None) -> dict[str, Any]:
    """Train the agent if it learns, judge it on the job's seed; return the record."""
    agent = make_agent(job.agent, job.seed)
    env = make_env(job.env, **{**agent.settings, **job.settings})
    env.reset(seed=job.seed)  # training runs are drawn from this seed's stream
    agent.train(env, job.training_episodes)
    started = time.perf_counter()
    trajectory = run_episode(env, agent, options={"seed": job.seed}, on_step=on_step)
    train_seconds = time.perf_counter() - started
    episodes = unwrap(env).episodes
    trainer = episodes.trainer
    if not isinstance(trainer, PopulationTrainer):
        raise TypeError(f"a comparison needs real training, got {trainer}")
    final = trajectory[-1]
    return {
        "format": FORMAT,
        "job": asdict(job),
        "training": asdict(trainer.config),
        "mdp": asdict(episodes.config),
        "device": str(trainer.device),
        "precision": trainer.precision,
        "corpus": trainer.corpus_facts,
        "trajectory": trajectory,
        "metrics": {
            "final_train_loss": final["train_loss"],
            "best_val_loss": final["best_val_loss"],
            "final_val_loss": final["val_loss"],
            "diverged": final["diverged"],
            "train_seconds": train_seconds,
            # A diverged model has no finite probabilities to draw from.
            "inference_tokens_per_second": None
            if final["diverged"]
            else inference_speed(trainer, job.samples),
            "training_episodes": agent.training_episodes,
        },
        "provenance": provenance(),
    }


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


def load_run(path: Path, job: Job) -> dict[str, Any] | None:
    """Return the finished run of `job`, or `None` where it still has to be run.

    Raises:
        ValueError: The file is damaged, or holds the run of another job.
    """
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = record["format"], record["job"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a whole run ({error!r}); delete it to repeat that run"
        ) from error
    expected = FORMAT, json.loads(json.dumps(asdict(job)))
    if known != expected:
        raise ValueError(
            f"{path} holds a run with other settings ({known[1]}, wanted "
            f"{expected[1]}); choose another --out, or delete it"
        )
    return record


def save_run(path: Path, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all."""
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
