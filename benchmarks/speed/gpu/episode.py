"""Seconds of a whole episode at paper scale through `gym.make`.

The agent keeps the learning rate; the base schedule decays it to zero. A cold run
compiles with empty caches on disk and in memory. A warm run uses compiled code. On a
CPU nothing is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks.speed import costs
from benchmarks.speed.gpu.session import Session, SubRun
from lr_gym.trainers.compilation import forget_compiled

SECONDS = {"cold": 75.0, "warm": 40.0}
TARGET_LOSS = 1.47  # nats; about the best validation loss of the paper


def plan(session: Session) -> list[SubRun]:
    """Return the episodes: two per compile mode, and one with the other schedule."""
    modes = session.compiled_modes
    runs = [(mode, "linear", start) for mode in modes for start in ("cold", "warm")]
    runs.append((modes[0], "cosine_to_zero", "warm"))
    return [
        SubRun(
            f"{schedule}, {mode}, {start}",
            session.pick(SECONDS[start], 0.0),
            partial(episode, session, mode, schedule, cold=start == "cold"),
        )
        for mode, schedule, start in runs
    ]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the seconds of each episode."""
    return "; ".join(
        f"{name}: {run['episode_seconds']:.1f} s" for name, run in runs.items()
    )


def episode(
    session: Session, mode: str, schedule: str, *, cold: bool
) -> dict[str, Any]:
    """Run an episode from its reset to its last step, all evaluations included."""
    if cold and session.device.type == "cuda":
        forget_compiled()
        folder = Path(mkdtemp(dir=session.folder))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    config = session.configure("paper", compile=mode)
    if not cold:  # the cold run may have been in an earlier process
        short = replace(config, max_iters=4, eval_interval=2, warmup_iters=0)
        costs.gym_episode(short)
    result = costs.gym_episode(config, base_schedule=schedule)
    result["episode_seconds"] = result.pop("seconds")
    first, later = result["first_step_seconds"], result["later_step_seconds"]["median"]
    compiling = max(0.0, first - later)
    reached = [
        seconds for _, seconds, loss in result["evaluations"] if loss <= TARGET_LOSS
    ]
    return {
        **result,
        "seed": 0,
        "base_schedule": schedule,
        "training": asdict(config),
        "compile_seconds": compiling,
        "target_loss": TARGET_LOSS,
        "seconds_to_target_loss": reached[0] if reached else None,
        "seconds_to_target_loss_without_compiling": (
            reached[0] - compiling if reached else None
        ),
    }
