"""Fair timing on a noisy machine: variants take turns, slice by slice.

A slice is a fixed piece of work. Every round times one slice of each variant, so a
disturbance of some seconds slows all variants alike. Ratios are taken within a round.
First slices (caches, compilation) are not timed with the others.
"""

from __future__ import annotations

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
from lr_gym.files import data_folder
from lr_gym.models import build_model

FORMAT = "lr-gym throughput 1"


@dataclass
class Variant:
    """One way to train, and the times of its slices.

    Attributes:
        name: Unique among the variants that take turns.
        size: E, members trained.
        config: The training of each member.
        vocab_size: Vocabulary size of the corpus.
        precision: Number format of the matrix products.
        tokens: Characters trained on per slice, all members together.
        run: Trains for one slice. `results` holds its return values.
        reference: The variant that this variant's speed is divided by.
        threads: Threads of torch in this process; `None` does not set them.
        close: Ends processes, if there are any.
        first_seconds: The untimed first slice: warm-up, and compilation where used.
        seconds: The timed slices.
        results: Return values of the timed slices.
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


class CannotRun(Exception):  # noqa: N818 - shown to the user in one line
    """This machine cannot run the command, or an argument is wrong."""


class Report:
    """A JSON file, written after every section: a killed run loses nothing."""

    def __init__(self, path: Path, **header: Any) -> None:
        """Start the file with `header` and the provenance."""
        self.path = path
        self.content: dict[str, Any] = {"format": FORMAT, **header}
        self.add("provenance", provenance())

    def add(self, section: str, value: object) -> None:
        """Set a section and write the file."""
        self.content[section] = value
        write_json(self.path, self.content)


def real_text_or_markov() -> str:
    """Return ``shakespeare`` if LR_GYM_DATA has it, else ``markov``."""
    folder = data_folder()
    has_text = folder and (folder / "tinyshakespeare.txt").is_file()
    return "shakespeare" if has_text else "markov"


def say(message: str) -> None:
    """Print progress on stderr; stdout is for the table."""
    print(message, file=sys.stderr, flush=True)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Return the seconds that `call` takes, and its result."""
    synchronize(device)
    started = time.perf_counter()
    result = call()
    synchronize(device)
    return time.perf_counter() - started, result


def warm_up(variants: Iterable[Variant], device: torch.device) -> None:
    """Run the first slice of every variant."""
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
    """Return median, minimum and maximum."""
    sample = list(values)
    return {
        "median": statistics.median(sample),
        "min": min(sample),
        "max": max(sample),
    }


def paired_speed(variant: Variant, reference: Variant) -> dict[str, float]:
    """Return the variant's characters per second over the reference's, per round."""
    work = variant.tokens / reference.tokens
    rounds = zip(variant.seconds, reference.seconds, strict=False)  # may be cut
    return spread(work * theirs / ours for ours, theirs in rounds)


def summarize(
    variants: Sequence[Variant], peaks: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Return the result of every variant by name, for the JSON file.

    Args:
        variants: Variants with at least one timed slice.
        peaks: Measured FLOP/s of matrix products, by precision.
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
    """Return the number of weights in matrix products; the head is tied."""
    with torch.device("meta"):
        model = build_model(config, vocab_size)
    return sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and not name.startswith("position_embedding")
    )


def flops_per_token(config: TrainingConfig, vocab_size: int) -> int:
    """Return the model FLOPs of training on one character, forward and backward.

    The count is 6 N + 12 L C T (Chowdhery et al. 2022, PaLM, appendix B). N is the
    number of weights in matrix products, for L blocks of width C and T positions.
    Embedding look-ups, norms and the optimizer do not count. Attention counts in full,
    although half of it is masked. Models without attention have only the first term.
    """
    if config.architecture != "gpt":
        return 6 * matmul_parameters(config, vocab_size)
    attention = 12 * config.n_layer * config.n_embd * config.block_size
    return 6 * matmul_parameters(config, vocab_size) + attention


def matmul_peak(
    device: torch.device, precision: str, sizes: Sequence[int], repeats: int = 10
) -> float:
    """Return the highest FLOP/s of square matrix products of random numbers."""
    best = 0.0
    for size in sizes:
        shape = (2, size, size)
        a, b = torch.randn(shape, device=device).to(getattr(torch, precision))
        out = a @ b
        for _ in range(repeats):
            seconds, _ = timed(partial(torch.mm, a, b, out=out), device)
            best = max(best, 2 * size**3 / seconds)
    return best
