"""A whole episode at paper scale: its seconds, and its losses beside nanoGPT's loop.

The agent keeps the learning rate; the base schedule decays it linearly to zero. The
splits are nanoGPT's and the paper's: the last tenth of the text validates. With the
package's own splits another part of Shakespeare validates, and losses are 0.26 higher.

A cold run compiles with empty caches on disk and in memory. A warm run uses compiled
code. On a CPU nothing is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from benchmarks.speed import costs, variants
from benchmarks.speed.gpu.session import Session, SubRun
from benchmarks.speed.plain_loop import PlainLoop
from lr_gym import load_corpus
from lr_gym.schedules import schedule_factor
from lr_gym.trainers.compilation import forget_compiled

SECONDS = {"cold": 75.0, "warm": 25.0, "plain": 90.0}
TARGET_LOSS = 1.47  # nats; about the best validation loss of the paper
SCHEDULE = "linear"
TEST_FRACTION = 0.0  # nanoGPT's and the paper's splits have no test text
PLAIN_BATCHES = 40  # of an evaluation of nanoGPT's loop, per split


def plan(session: Session) -> list[SubRun]:
    """Return both episodes of the fastest compile mode, and nanoGPT's loop."""
    mode = session.compiled_modes[0]
    calls = {
        f"{SCHEDULE}, {mode}, {start}": (
            start,
            partial(episode, session, mode, cold=start == "cold"),
        )
        for start in ("cold", "warm")
    }
    calls["nanoGPT's loop"] = "plain", partial(plain_losses, session)
    return [
        SubRun(name, session.pick(SECONDS[kind], 0.0), call)
        for name, (kind, call) in calls.items()
    ]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the seconds of each episode."""
    return "; ".join(
        f"{name}: {run['seconds']:.1f} s, best loss {run['best_val_loss']:.3f}"
        for name, run in runs.items()
    )


def episode(session: Session, mode: str, *, cold: bool) -> dict[str, Any]:
    """Run an episode from its reset to its last step, all evaluations included."""
    if cold and session.device.type == "cuda":
        forget_compiled()
        folder = Path(mkdtemp(dir=session.folder))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    config = session.configure("paper", compile=mode, test_fraction=TEST_FRACTION)
    if not cold:  # the cold run may have been in an earlier process
        short = replace(config, max_iters=4, eval_interval=2, warmup_iters=0)
        costs.gym_episode(short)
    result = costs.gym_episode(config, base_schedule=SCHEDULE)
    result["episode_seconds"] = result.pop("seconds")
    first, later = result["first_step_seconds"], result["later_step_seconds"]["median"]
    compiling = max(0.0, first - later)
    reached = [
        seconds for _, seconds, loss in result["evaluations"] if loss <= TARGET_LOSS
    ]
    return {
        **result,
        "seed": 0,
        "base_schedule": SCHEDULE,
        "training": asdict(config),
        "compile_seconds": compiling,
        "target_loss": TARGET_LOSS,
        "seconds_to_target_loss": reached[0] if reached else None,
        "seconds_to_target_loss_without_compiling": (
            reached[0] - compiling if reached else None
        ),
    }


def plain_losses(session: Session) -> dict[str, Any]:
    """Train nanoGPT's loop on the same schedule; estimate its losses at each decision.

    Its weights and batches are its own, so its losses differ from ours by chance.
    """
    config = session.configure("paper", test_fraction=TEST_FRACTION)
    corpus = load_corpus(session.corpus.name, test_fraction=TEST_FRACTION)
    torch.manual_seed(0)
    precision = variants.resolved_precision(config)
    folder = Path(mkdtemp(dir=session.folder))  # other splits than other parts
    loop = PlainLoop(config, corpus, folder, precision=precision)
    factors = schedule_factor(
        SCHEDULE, range(config.max_iters), config.max_iters, config.warmup_iters
    )
    evaluations = []
    for iteration, factor in enumerate(factors, 1):
        loop.train(1, config.learning_rate * float(factor))
        if iteration % config.eval_interval == 0:
            losses = loop.evaluate(session.pick(PLAIN_BATCHES, 2))
            evaluations.append((iteration, losses["train"], losses["val"]))
    return {
        "seed": 0,
        "base_schedule": SCHEDULE,
        "training": asdict(config),
        "batches_per_evaluation": session.pick(PLAIN_BATCHES, 2),
        "evaluations": evaluations,  # iteration, training loss, validation loss
        "best_val_loss": min(val for *_, val in evaluations),
    }
