"""Timing that is fair on a noisy machine: variants take turns, slice by slice.

A slice is a fixed piece of work. Every round times one slice of each variant, so that
what disturbs the machine for seconds disturbs all alike, and ratios are taken within a
round. First slices (caches, compilation) are kept apart.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import provenance
from benchmarks.results_file import write_json
from lr_gym import TrainingConfig
from lr_gym.models import build_model

FORMAT = "lr-gym throughput 1"


@dataclass
class Variant:
    """One way to train, and the times of its slices.

    Attributes:
        name: Unique among those it takes turns with.
        size: E, members trained.
        config: What each member trains.
        vocab_size: Of the corpus.
        precision: Number format of the matrix products.
        tokens: Characters trained on per slice, all members together.
        run: Trains for one slice; what it returns is kept.
        reference: The variant whose speed this one's is divided by.
        threads: Of torch, in this process; `None` leaves them as they are.
        close: Ends processes, if there are any.
        first_seconds: The untimed first slice: warm-up, and compilation where used.
        seconds: The timed slices.
        results: What the timed slices returned.
    """

    name: str
    size: int
    config: TrainingConfig
    vocab_size: int
    precision: str
    tokens: int
    run: Callable[[], Any]
    reference: str | None = None
    threads: int | None = None
    close: Callable[[], object] = lambda: None
    first_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


class CannotRun(Exception):  # noqa: N818 - said to the user in one line
    """This machine, or the command line, does not allow what was asked for."""


class Report:
    """A JSON file that is whole after every section: a killed run loses nothing."""

    def __init__(self, path: Path, **header: Any) -> None:
        """Start the file with `header` and the provenance."""
        self.path = path
        self.content: dict[str, Any] = {"format": FORMAT, **header}
        self.add("provenance", provenance())

    def add(self, section: str, value: object, group: str | None = None) -> None:
        """Set a section, one of a group where one is named, and write the file."""
        place = self.content if group is None else self.content.setdefault(group, {})
        place[section] = value
        write_json(self.path, self.content)


def real_text_or_markov() -> str:
    """Return ``shakespeare`` where LR_GYM_DATA has it, else ``markov``."""
    folder = os.environ.get("LR_GYM_DATA")
    found = folder and (Path(folder) / "tinyshakespeare.txt").is_file()
    return "shakespeare" if found else "markov"


def say(message: str) -> None:
    """Tell how far we are, on stderr: stdout is for the table."""
    print(message, file=sys.stderr, flush=True)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Return how long `call` takes, in seconds, and what it returns."""
    synchronize(device)
    started = time.perf_counter()
    result = call()
    synchronize(device)
    return time.perf_counter() - started, result


def warm_up(variants: Iterable[Variant], device: torch.device) -> None:
    """Run every variant's first slice, which is not counted."""
    for variant in variants:
        variant.first_seconds, _ = _slice(variant, device)


def _slice(variant: Variant, device: torch.device) -> tuple[float, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(variant.threads or threads)
    try:
        return timed(variant.run, device)
    finally:
        torch.set_num_threads(threads)


def take_turns(
    variants: Sequence[Variant],
    repeats: int,
    device: torch.device,
    limit_seconds: float = float("inf"),
) -> None:
    """Time `repeats` rounds of one slice each; none starts after `limit_seconds`."""
    started = time.perf_counter()
    for _ in range(repeats):
        if time.perf_counter() - started > limit_seconds:
            return
        for variant in variants:
            seconds, result = _slice(variant, device)
            variant.seconds.append(seconds)
            variant.results.append(result)


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    known = list(values)
    return {
        "median": statistics.median(known),
        "min": min(known),
        "max": max(known),
    }


def paired_speed(variant: Variant, reference: Variant) -> dict[str, float]:
    """Return the variant's characters per second over the reference's, per round."""
    work = variant.tokens / reference.tokens
    pairs = zip(variant.seconds, reference.seconds, strict=False)  # a round may be cut
    return spread(work * theirs / ours for ours, theirs in pairs)


def summarize(
    variants: Sequence[Variant], peaks: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Return what is kept of variants that took turns, by name.

    Args:
        variants: Timed, at least one slice each.
        peaks: Per precision, the machine's measured matrix products, FLOP/s.
    """
    by_name = {variant.name: variant for variant in variants}
    table: dict[str, dict[str, Any]] = {}
    for variant in variants:
        speed = spread(variant.tokens / seconds for seconds in variant.seconds)
        cost = flops_per_token(variant.config, variant.vocab_size)
        row: dict[str, Any] = {
            "size": variant.size,
            "precision": variant.precision,
            "threads": variant.threads or torch.get_num_threads(),
            "tokens_per_slice": variant.tokens,
            "first_slice_seconds": variant.first_seconds,
            "slice_seconds": variant.seconds,
            "tokens_per_second": speed,
            "model_flops_per_second": speed["median"] * cost,
            "utilization": speed["median"] * cost / peaks[variant.precision],
        }
        if variant.reference in by_name:
            row["reference"] = variant.reference
            row["ratio"] = paired_speed(variant, by_name[variant.reference])
        table[variant.name] = row
    return table


def matmul_parameters(config: TrainingConfig, vocab_size: int) -> int:
    """Return how many weights a character is multiplied by: matrices, tied head."""
    with torch.device("meta"):
        model = build_model(config, vocab_size)
    return sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and not name.startswith("position_embedding")
    )


def flops_per_token(config: TrainingConfig, vocab_size: int) -> int:
    """Return the model FLOPs of training on one character, forward and backward.

    6 N + 12 L C T, the usual count (Chowdhery et al. 2022, PaLM, appendix B): N are the
    weights in matrix products (embedding look-ups, norms and the optimizer count
    nothing), L blocks of width C; attention over T positions counts in full, although
    half of it is masked, and without attention there is no such term.
    """
    if config.architecture != "gpt":
        return 6 * matmul_parameters(config, vocab_size)
    attention = 12 * config.n_layer * config.n_embd * config.block_size
    return 6 * matmul_parameters(config, vocab_size) + attention


def matmul_peak(
    device: torch.device, precision: str, sizes: Sequence[int], repeats: int = 10
) -> float:
    """Return the best FLOP/s of square matrix products of random numbers."""
    best = 0.0
    for size in sizes:
        shape = (2, size, size)
        a, b = torch.randn(shape, device=device).to(getattr(torch, precision))
        out = a @ b
        for _ in range(repeats):
            seconds, _ = timed(partial(torch.mm, a, b, out=out), device)
            best = max(best, 2 * size**3 / seconds)
    return best
