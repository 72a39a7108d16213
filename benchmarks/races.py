"""Races of gpu_suite.py: plain loops and populations of one model take turns.

A variant that fails, or for which too little time is left, is recorded as such, and the
others go on.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import variants
from benchmarks.plain_loop import PlainLoop
from benchmarks.tables import SKIPPED
from benchmarks.timing import (
    Variant,
    matmul_peak,
    paired_speed,
    summarize,
    take_turns,
    warm_up,
)
from lr_gym import TrainingConfig, load_corpus, preset
from lr_gym.compilation import forget_compiled
from lr_gym.devices import resolve_device


class Budget:
    """A number of seconds, running."""

    def __init__(self, seconds: float) -> None:
        """Start the clock."""
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, below 0 where overrun."""
        return self._end - time.monotonic()


class Machine:
    """The device, its measured peak, and the text to train on."""

    def __init__(
        self,
        corpus_name: str,
        folder: Path,
        settings: dict[str, Any],
        peak_sizes: tuple[int, ...],
    ) -> None:
        """Load the text and measure the device.

        Args:
            corpus_name: A built-in corpus.
            folder: For the plain loop's token files.
            settings: Fields of every configuration; the device is among them.
            peak_sizes: Of square matrix products.
        """
        self.corpus_name = corpus_name
        self.corpus = load_corpus(corpus_name)
        self.folder = folder
        self.settings = settings
        config = self.configure("paper")
        self.device = resolve_device(config.device)
        self.precision = variants.resolved_precision(config)
        self.peaks = {
            self.precision: matmul_peak(self.device, self.precision, peak_sizes)
        }

    def configure(
        self, scale: str, corpus: str | None = None, **overrides: Any
    ) -> TrainingConfig:
        """Return a preset for our text, or `corpus`, on the device."""
        given = self.settings | overrides
        return preset(scale, corpus or self.corpus_name, **given)

    def plain_loop(self, config: TrainingConfig) -> PlainLoop:
        """Return a plain loop in our number format."""
        precision = self.precision
        return PlainLoop(config, self.corpus, self.folder, precision=precision)

    def allocated(self) -> int:
        """Return the device memory in use, and count its peak anew; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def peak_allocated(self) -> int:
        """Return the most device memory in use since `allocated`; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0
        return torch.cuda.max_memory_allocated(self.device)

    def forget_compiled(self) -> None:
        """Drop compiled graphs and their memory."""
        forget_compiled()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Race:
    """Who takes turns: a plain loop, and our populations by size and compile mode."""

    scale: str
    dropout: float
    sizes: tuple[int, ...]
    modes: tuple[str, ...]
    plain_compiled: bool = False  # a compiled plain loop as well, nanoGPT's default

    @property
    def name(self) -> str:
        """A name of its own among the parts of the suite."""
        sizes, modes = "+".join(map(str, self.sizes)), "+".join(self.modes)
        return f"{self.scale}-dropout{self.dropout:g}-E{sizes}-{modes}"


@dataclass(frozen=True)
class Rules:
    """How much every race times."""

    repeats: int = 5
    member_updates: int = 128  # in a slice: E members make 128 / E updates, but at
    least_updates: int = 8  # least so many
    seconds: float = 40.0  # no round starts after these
    compile_seconds: float = 60.0  # expected, until a compilation has been seen


@dataclass
class Outcome:
    """What a race leaves behind while it runs."""

    started: list[Variant] = field(default_factory=list)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class RaceCourse:
    """Runs races on a machine, and remembers how long starts take."""

    def __init__(self, machine: Machine, rules: Rules, budget: Budget) -> None:
        """Prepare; `budget` is checked before every variant."""
        self.machine = machine
        self.rules = rules
        self.budget = budget
        self._slowest_start: dict[str, float] = {}  # per compile mode

    def run(self, race: Race) -> dict[str, Any]:
        """Let the race's variants take turns; return what is kept of them."""
        self.machine.forget_compiled()
        outcome = Outcome()
        for name, mode, make in self._entrants(race):
            if self.budget.left() < 1.5 * self._expected_start(mode):
                outcome.notes[name] = SKIPPED
                continue
            try:
                self._start(name, mode, make, outcome)
            except Exception as error:  # noqa: BLE001 - recorded; the next one's turn
                outcome.notes[name] = one_line(error)
        limit = min(self.rules.seconds, self.budget.left())
        device = self.machine.device
        try:
            take_turns(outcome.started, self.rules.repeats, device, limit)
        except Exception as error:  # noqa: BLE001 - what was timed before it is kept
            outcome.notes["rounds"] = one_line(error)
        return {**asdict(race), **self._record(outcome)}

    def _expected_start(self, mode: str) -> float:
        guess = 5.0 if mode == "off" else self.rules.compile_seconds
        return self._slowest_start.get(mode, guess)

    def _start(
        self, name: str, mode: str, make: Callable[[], Variant], outcome: Outcome
    ) -> None:
        before = self.machine.allocated()
        started = time.monotonic()
        variant = make()
        warm_up([variant], self.machine.device)
        first = variant.first_seconds
        spent = time.monotonic() - started
        self._slowest_start[mode] = max(spent, self._slowest_start.get(mode, 0.0))
        warm_up([variant], self.machine.device)  # CUDA graphs record the second time
        variant.first_seconds = first
        outcome.peak_bytes[name] = self.machine.peak_allocated() - before
        outcome.started.append(variant)

    def _entrants(self, race: Race) -> list[tuple[str, str, Callable[[], Variant]]]:
        """Return name, mode and maker of every variant in a race."""
        machine = self.machine
        config = machine.configure(race.scale, dropout=race.dropout, compile="off")
        plain = partial(
            variants.plain,
            config=config,
            corpus=machine.corpus,
            iterations=self._updates(1),
            folder=machine.folder,
            precision=machine.precision,
            reference="plain",
        )
        entrants: list[tuple[str, str, Callable[[], Variant]]] = [
            ("plain", "off", partial(plain, "plain"))
        ]
        if race.plain_compiled:
            name = "plain, compiled"
            entrants.append((name, "default", partial(plain, name, compile=True)))
        for mode in race.modes:
            for size in race.sizes:
                name = f"population {size}, {mode}"
                make = partial(
                    variants.population,
                    name,
                    replace(config, compile=mode),
                    machine.corpus,
                    self._updates(size),
                    size=size,
                    reference="plain",
                )
                entrants.append((name, mode, make))
        return entrants

    def _updates(self, size: int) -> int:
        return max(self.rules.least_updates, self.rules.member_updates // size)

    def _record(self, outcome: Outcome) -> dict[str, Any]:
        """Return the table of those that ran; ours also against a single member."""
        ran = {v.name: v for v in outcome.started if v.seconds}
        table = summarize(list(ran.values()), self.machine.peaks)
        for name, row in table.items():
            row["peak_bytes"] = outcome.peak_bytes[name]
            row["last_train_loss"] = ran[name].results[-1]
            mode = name.rpartition(", ")[2]
            alone = ran.get(f"population 1, {mode}")
            if alone is not None and row["size"] > 1:
                row["speed_over_one_member"] = paired_speed(ran[name], alone)
        return {"variants": table, "notes": outcome.notes}


def one_line(error: Exception) -> str:
    """Return an error as one line of at most 500 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
