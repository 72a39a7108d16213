"""Where the time of training goes: fused or plain attention, and profiles."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.gpu import attention
from benchmarks.speed.gpu.checks import skipped_check
from benchmarks.speed.gpu.session import Session, SubRun
from benchmarks.speed.gpu.speed import SIZES, updates_of
from benchmarks.speed.timing import synchronize
from lr_gym import PopulationTrainer

SECONDS = {"profile": 20.0, "attention": 150.0}
PROFILE_ROWS = 25


def plan(session: Session) -> list[SubRun]:
    """Return the profiles and the comparison of attention."""
    sizes = session.pick(SIZES, (1, 2))
    subs = [
        SubRun(
            f"profile, E={size}",
            session.pick(SECONDS["profile"], 0.0),
            partial(profile_training, session, size),
        )
        for size in sizes
    ]
    seconds = session.pick(SECONDS["attention"], 0.0)
    compare = partial(compare_attention, session, sizes)
    return [*subs, SubRun("attention", seconds, compare)]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the speed of fused over plain attention, by size."""
    by_size = runs.get("attention", {}).get("by_size", {})
    texts = []
    for size, kinds in by_size.items():
        fused, plain = (
            kinds[kind]["tokens_per_second"]["median"] for kind in ("fused", "plain")
        )
        texts.append(f"E={size}: fused attention {fused / plain:.2f}x plain")
    return "; ".join(texts)


def compare_attention(session: Session, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Time training with fused and with plain attention, in separate processes."""
    if session.device.type != "cuda":
        return skipped_check("the fused attention with dropout is for CUDA")
    config = session.configure("paper", compile=session.long_compile)
    return {
        "compile": config.compile,
        "by_size": {
            str(size): {
                kind: attention.in_subprocess(
                    kind, config, size=size, updates=updates_of(session, size), rounds=3
                )
                for kind in ("fused", "plain")
            }
            for size in sizes
        },
    }


def profile_training(session: Session, size: int) -> dict[str, Any]:
    """Return the longest entries of the profiler."""
    config = session.configure("paper", compile=session.compiled_modes[0])
    trainer = PopulationTrainer(config, session.corpus, size)
    trainer.reset(range(size), range(size))
    rates = [config.learning_rate] * size
    updates = session.pick(10, 2)
    for _ in range(2):
        trainer.train(updates, rates)
    cuda = session.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if cuda else []
    with profile(activities=[ProfilerActivity.CPU, *activities]) as profiler:
        trainer.train(updates, rates)
        synchronize(session.device)
    rows = []
    for event in profiler.key_averages():
        on_cpu = event.device_type.name == "CPU"
        # A named range contains kernels that have entries of their own.
        if on_cpu == cuda or getattr(event, "is_user_annotation", False):
            continue
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        rows.append((event.key[:120], int(event.count), float(spent)))
    rows.sort(key=lambda row: -row[2])
    total = sum(spent for *_, spent in rows)
    names = ("name", "calls", "microseconds", "share")
    return {
        "compile": config.compile,
        "updates": updates,
        "device_microseconds": total,
        "table": [
            dict(zip(names, (*row, row[2] / total if total else 0.0), strict=True))
            for row in rows[:PROFILE_ROWS]
        ],
    }
