"""Everything that needs a GPU, in one call within a budget of seconds.

    python benchmarks/throughput.py --gpu-suite
    python benchmarks/throughput.py --gpu-suite --dry-run   # the same code, on a CPU

Parts run in the order of their importance. The file is written after each; a part for
which too little time is left is recorded as ``skipped: budget``, one that fails with
its error, and the suite goes on.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import costs
from benchmarks.races import (
    Budget,
    Machine,
    Race,
    RaceCourse,
    Rules,
    one_line,
)
from benchmarks.tables import SKIPPED, gpu_tables
from benchmarks.timing import (
    CannotRun,
    Report,
    real_text_or_markov,
    say,
    timed,
)
from lr_gym import Corpus, PopulationTrainer

MODES = ("off", "default", "reduce-overhead")
MOST = (2, 4, 16, 32, 64)  # beside 1 and 8, which come first
WIKIPEDIA_VOCABULARY = 205  # enwik8's


@dataclass(frozen=True)
class Suite:
    """How large everything is."""

    first: tuple[Race, ...] = (
        Race("paper", 0.2, (1, 8), MODES, plain_compiled=True),
        Race("paper", 0.2, MOST, ("off",)),
    )
    then: tuple[Race, ...] = (  # after the whole episode and the other costs
        Race("paper", 0.0, (1, 8), ("off", "default")),
        Race("tiny", 0.0, (1, 64, 512), ("off",)),
        Race("mini", 0.0, (1, 64, 512), ("off",)),
        Race("paper", 0.2, (64,), ("default",)),
        Race("paper", 0.0, MOST, ("off",)),
        Race("paper", 0.2, (2, 4, 16, 32), ("default",)),
        Race("tiny", 0.0, (1, 64, 512), ("default",)),
        Race("mini", 0.0, (1, 64, 512), ("default",)),
        Race("paper", 0.2, MOST, ("reduce-overhead",)),
        Race("paper", 0.0, MOST, ("default",)),
        Race("paper", 0.0, (1, 8, *MOST), ("reduce-overhead",)),
    )
    rules: Rules = field(default_factory=Rules)
    settings: dict[str, Any] = field(default_factory=lambda: {"device": "cuda"})
    compile: str = "auto"  # of the whole episode and of wikipedia
    episode: dict[str, Any] = field(default_factory=dict)  # of the whole episode
    plain_iterations: int = 100  # timed of a whole episode
    evaluation_batches: int = 200  # as in the paper's code
    wikipedia_iterations: int = 1_000
    wikipedia_characters: int = 2_000_000
    generated: int = 500  # characters, as in the paper's measurement
    generation_batches: tuple[int, ...] = (1, 64)
    snapshot_sizes: tuple[int, ...] = (1, 64)
    peak_sizes: tuple[int, ...] = (8192,)
    # A part starts only where so many seconds are left.
    needs: dict[str, float] = field(
        default_factory=lambda: {
            "race": 20.0,
            "episode": 150.0,
            "evaluation": 30.0,
            "generation": 20.0,
            "wikipedia": 60.0,
            "snapshots": 10.0,
        }
    )


DRY = Suite(
    first=(Race("paper", 0.2, (1, 2), ("off",)),),
    then=(
        Race("paper", 0.0, (1, 2), ("off",)),
        Race("tiny", 0.0, (1, 2), ("off",)),
        Race("mini", 0.0, (1, 2), ("off",)),
    ),
    rules=Rules(repeats=2, member_updates=2, least_updates=2),
    settings={
        "n_layer": 1,
        "n_head": 2,
        "n_embd": 16,
        "block_size": 16,
        "batch_size": 4,
        "eval_tokens": 256,
        "device": "cpu",
        "precision": "float32",
    },
    compile="off",
    episode={"max_iters": 8, "eval_interval": 2, "warmup_iters": 0},
    plain_iterations=2,
    evaluation_batches=2,
    wikipedia_iterations=4,
    wikipedia_characters=20_000,
    generated=8,
    generation_batches=(1, 2),
    snapshot_sizes=(1, 2),
    peak_sizes=(128,),
    needs={},
)


class Parts:
    """The parts that are no races."""

    def __init__(self, machine: Machine, suite: Suite) -> None:
        """Prepare; nothing is trained yet."""
        self.machine = machine
        self.suite = suite

    def episode(self) -> dict[str, Any]:
        """Run a whole episode in the gym; time the plain loop beside it."""
        machine, suite = self.machine, self.suite
        overrides = {"compile": suite.compile, **suite.episode}
        config = machine.configure("paper", **overrides)
        ours = costs.gym_episode(config)
        loop = machine.plain_loop(config)
        loop.train(2, config.learning_rate)  # warm-up
        plain = costs.plain_episode(
            loop,
            ours["decisions"],
            batches=suite.evaluation_batches,
            part=suite.plain_iterations,
        )
        return {
            "corpus": machine.corpus.facts(),
            "training_config": asdict(config),
            "gym": ours,
            "plain": plain,
            "plain_over_gym": plain["seconds"] / ours["seconds"],
        }

    def evaluation(self) -> dict[str, Any]:
        """Time the exact pass beside the random batches."""
        config = self.machine.configure("paper", compile="off")
        iterations = self.suite.plain_iterations
        loop = self.machine.plain_loop(config)
        loop.train(iterations, config.learning_rate)
        return costs.evaluation_cost(
            config,
            self.machine.corpus,
            loop,
            batches=self.suite.evaluation_batches,
            repeats=self.suite.rules.repeats,
            iterations=iterations,
        )

    def generation(self) -> dict[str, Any]:
        """Time writing text with a member of a population."""
        config = self.machine.configure("paper", compile="off")
        model = PopulationTrainer(config, self.machine.corpus, 1).model(0)
        device, count = self.machine.device, self.suite.generated
        speeds = {}
        for batch in self.suite.generation_batches:
            prompt = torch.zeros((batch, 1), dtype=torch.int64, device=device)
            model.generate(prompt, min(count, 8))  # warm-up
            seconds, _ = timed(partial(model.generate, prompt, count), device)
            speeds[str(batch)] = batch * count / seconds
        return {"characters": count, "characters_per_second_by_batch": speeds}

    def wikipedia(self) -> dict[str, Any]:
        """Train as on enwik8: its batch and alphabet, on random characters."""
        config = self.machine.configure("paper", "enwik8", compile=self.suite.compile)
        corpus = random_corpus(self.suite.wikipedia_characters)
        trainer = PopulationTrainer(config, corpus, 1)
        trainer.reset([0], [0])
        device, rate = self.machine.device, [config.learning_rate]
        iterations = self.suite.wikipedia_iterations
        first, _ = timed(partial(trainer.train, 2, rate), device)
        seconds, _ = timed(partial(trainer.train, iterations, rate), device)
        characters = iterations * config.batch_size * config.block_size
        return {
            "training_config": asdict(config),
            "vocab_size": corpus.vocab_size,
            "compile": trainer.compile,
            "first_two_iterations_seconds": first,
            "iterations": iterations,
            "seconds": seconds,
            "tokens_per_second": characters / seconds,
        }

    def snapshots(self) -> list[dict[str, Any]]:
        """Time snapshots and putting them back."""
        config = self.machine.configure("paper", compile="off")
        corpus, repeats = self.machine.corpus, self.suite.rules.repeats
        return [
            costs.snapshot_cost(config, corpus, size, repeats)
            for size in self.suite.snapshot_sizes
        ]


def random_corpus(characters: int) -> Corpus:
    """Return random characters, as many different ones as enwik8 has."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(WIKIPEDIA_VOCABULARY, size=characters, dtype=np.uint8)
    cut = characters * 9 // 10
    return Corpus(
        name="random",
        vocabulary=tuple(map(chr, range(WIKIPEDIA_VOCABULARY))),
        train=tokens[:cut],
        val=tokens[cut:],
        test=tokens[:0],
        complete=True,
        sha256="",
        entropy_rate=float(np.log(WIKIPEDIA_VOCABULARY)),
    )


def run(
    out: Path,
    folder: Path,
    *,
    budget_seconds: float,
    dry_run: bool,
    chosen: Sequence[str] | None,
) -> Path:
    """Run the suite; return the path of its JSON file.

    Args:
        out: Where the JSON file goes.
        folder: For temporary files.
        budget_seconds: Of wall time.
        dry_run: Run the same code on a CPU, with small numbers.
        chosen: Parts to run; `None` is all.

    Raises:
        CannotRun: There is no CUDA device and this is no dry run, or no such part.
    """
    budget = Budget(budget_seconds)
    if not dry_run and not torch.cuda.is_available():
        raise CannotRun("--gpu-suite needs a CUDA device; --dry-run tries it on a CPU")
    if importlib.util.find_spec("pooch") is None:  # it would say where to keep graphs
        os.environ.setdefault("LR_GYM_CACHE", f"{tempfile.gettempdir()}/lr_gym_cache")
    if dry_run:
        torch.set_num_threads(1)  # models so small that threads wait for one another
    suite = DRY if dry_run else Suite()
    machine = Machine(real_text_or_markov(), folder, suite.settings, suite.peak_sizes)
    calls = _calls(suite, machine, budget)
    for name in chosen or ():
        if name not in calls:
            raise CannotRun(f"--parts must be some of {list(calls)}, got {name!r}")
    report = Report(
        out / "gpu.json",
        dry_run=dry_run,
        budget_seconds=budget_seconds,
        corpus=machine.corpus.facts(),
        precision=machine.precision,
        matmul_peak_flops_per_second=machine.peaks,
    )
    races = {race.name for race in (*suite.first, *suite.then)}
    for name in chosen or calls:
        say(f"{name} ({budget.left():.0f} s left)")
        group = "races" if name in races else None
        started = time.monotonic()
        need = suite.needs.get("race" if group else name, 0.0)
        report.add(name, _guarded(calls[name], need, budget), group)
        report.add(name, time.monotonic() - started, "part_seconds")
    report.add("seconds", budget_seconds - budget.left())
    print(gpu_tables(report.content))
    print(f"\n{report.path}")
    return report.path


def _calls(
    suite: Suite, machine: Machine, budget: Budget
) -> dict[str, Callable[[], Any]]:
    """Return every part's function, by name, in order."""
    course = RaceCourse(machine, suite.rules, budget)
    parts = Parts(machine, suite)
    names = ("episode", "evaluation", "generation", "wikipedia", "snapshots")
    return {
        **{race.name: partial(course.run, race) for race in suite.first},
        **{name: getattr(parts, name) for name in names},
        **{race.name: partial(course.run, race) for race in suite.then},
    }


def _guarded(call: Callable[[], Any], need: float, budget: Budget) -> object:
    """Return what `call` returns, or why it did not."""
    if budget.left() < need:
        return SKIPPED
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - recorded, and the next part's turn
        return {"error": one_line(error)}
