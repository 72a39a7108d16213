"""Training speed against nanoGPT's loop.

nanoGPT's loop runs as published: compiled, in bfloat16, with fused AdamW. All variants
take turns. Utilisation is model FLOP/s over the highest FLOP/s of matrix products in
the same sub-run.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from benchmarks.speed import variants
from benchmarks.speed.gpu.session import Session, SubRun
from benchmarks.speed.timing import (
    Variant,
    matmul_peak,
    say,
    summarize,
    take_turns,
    warm_up,
)

SIZES = (1, 8)
SECONDS = 120.0  # per size
PEAK_SIZES = (4096, 8192)  # of square matrix products
ROUNDS = 5
MEMBER_UPDATES = 128  # per slice; E members make 128 / E updates each


def plan(session: Session) -> list[SubRun]:
    """Return the timings, one per size."""
    seconds = session.pick(SECONDS, 0.0)
    return [
        SubRun(f"E={size}", seconds, partial(group, session, size))
        for size in session.pick(SIZES, (1, 2))
    ]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the best utilisation of each group, and its speed over nanoGPT's loop."""
    texts = []
    for name, run in runs.items():
        if "variants" in run:
            row = fastest(run["variants"])
            text = f"{name}: {row['utilization']:.0%} utilisation"
            ratio = row.get("ratio")
            texts.append(text + (f", {ratio['median']:.2f}x plain" if ratio else ""))
    return "; ".join(texts)


def fastest(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of our fastest variant."""
    ours = [row for name, row in table.items() if not name.startswith("plain")]
    return max(ours, key=lambda row: float(row["tokens_per_second"]["median"]))


def group(session: Session, size: int) -> dict[str, Any]:
    """Time nanoGPT's loop and our populations of one size in turns."""
    config = session.configure("paper", compile="off")
    precision = variants.resolved_precision(config)
    compiled = session.device.type == "cuda"
    plain = partial(
        variants.plain,
        "plain",
        config,
        session.corpus,
        updates_of(session, 1),
        session.folder,
        precision=precision,
        compile=compiled,
    )
    makers: dict[str, Callable[[], Variant]] = {"plain": plain}
    for mode in session.modes:
        makers[f"ours, {mode}"] = population(session, size, mode, reference="plain")
    return {"plain_compiled": compiled, **time_in_turns(session, makers)}


def updates_of(session: Session, size: int) -> int:
    """Return the updates per slice of each member."""
    return int(session.pick(max(2, MEMBER_UPDATES // size), 2))


def population(
    session: Session, size: int, mode: str, reference: str | None = None
) -> Callable[[], Variant]:
    """Return a function that makes a population at paper scale."""

    def make() -> Variant:
        return variants.population(
            f"ours, {mode}",
            session.configure("paper", compile=mode),
            session.corpus,
            updates_of(session, size),
            size=size,
            reference=reference,
        )

    return make


def time_in_turns(
    session: Session, makers: Mapping[str, Callable[[], Variant]]
) -> dict[str, Any]:
    """Time variants in turns; record the errors of variants that fail.

    Returns:
        ``variants``: those of `summarize`, each with ``peak_bytes``. ``errors`` by
        name. ``matmul_peak_flops_per_second`` by number format.
    """
    device, cuda = session.device, session.device.type == "cuda"
    ready: list[Variant] = []
    memory: dict[str, int] = {}
    errors: dict[str, str] = {}
    peaks: dict[str, float] = {}
    sizes = session.pick(PEAK_SIZES, (128,))
    for name, make in makers.items():
        say(f"  {name}")
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) if cuda else 0
        try:
            variant = make()
            warm_up([variant], device)
            first = variant.first_seconds
            warm_up([variant], device)  # the second slice still prepares CUDA graphs
            variant.first_seconds = first
            if variant.precision not in peaks:
                peaks[variant.precision] = matmul_peak(device, variant.precision, sizes)
        except Exception:  # noqa: BLE001 - recorded
            errors[name] = traceback.format_exc()
            continue
        memory[name] = torch.cuda.max_memory_allocated(device) - before if cuda else 0
        ready.append(variant)
    take_turns(
        ready, session.pick(ROUNDS, 2), device, max(10.0, session.seconds_left() - 10.0)
    )
    table = summarize(ready, peaks)
    for variant in ready:
        table[variant.name] |= {
            "peak_bytes": memory[variant.name],
            "last_train_loss": variant.results[-1],
        }
    return {
        "variants": table,
        "errors": errors,
        "matmul_peak_flops_per_second": peaks,
    }
