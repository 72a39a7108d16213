"""The measurements of throughput.py at one scale."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import costs, variants
from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.throughput_report import scale_tables
from benchmarks.speed.timing import (
    CannotRun,
    Report,
    Variant,
    flops_per_token,
    matmul_parameters,
    matmul_peak,
    paired_speed,
    real_text_or_markov,
    say,
    spread,
    summarize,
    take_turns,
    warm_up,
)
from lr_gym import TrainingConfig, load_corpus, preset
from lr_gym.devices import resolve_device

ITERATIONS = {"tiny": 20, "mini": 5, "paper": 1}  # per slice: half a second at E = 1


@dataclass(frozen=True)
class Plan:
    """The measurements and their sizes."""

    quick: bool = False  # a smoke run, without meaningful numbers
    scale: str = "mini"
    device: str = "auto"
    compile: bool = False  # also compiled populations
    full: bool = False  # the plain loop's whole episode, not a part
    threads: int | None = None  # of torch; `None`: the faster number for `plain`
    iterations: int | None = None  # updates per member in a slice
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    repeats: int = 7
    step_size: int = 8
    evaluation_batches: int = 200  # as in the paper's code
    plain_iterations: int = 60  # of an episode, timed
    linear_sizes: tuple[int, int] = (16, 64)
    linear_iterations: int = 5
    widths: tuple[int, ...] = (64, 128, 256, 512)
    width_size: int = 4
    peak_sizes: tuple[int, ...] = (1024, 2048)
    settings: dict[str, Any] = field(default_factory=dict)  # of the whole episode


QUICK = Plan(
    quick=True,
    iterations=2,
    sizes=(1, 2),
    repeats=2,
    step_size=2,
    evaluation_batches=4,
    plain_iterations=4,
    linear_sizes=(2, 4),
    linear_iterations=1,
    widths=(64, 128),
    width_size=2,
    peak_sizes=(256,),
    settings={"max_iters": 8, "eval_interval": 2, "warmup_iters": 0},
)


class ScaleSuite:
    """One scale on this machine, with the state of all sections."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Build the configuration and measure the machine."""
        self.plan = plan
        self.iterations = plan.iterations or ITERATIONS[plan.scale]
        self.folder = folder  # for the token files of the plain loop
        self.device = resolve_device(plan.device)
        self.corpus_name = real_text_or_markov()
        self.config = self.configure(plan.scale)
        self.corpus = load_corpus(self.corpus_name)
        self.precision = variants.resolved_precision(self.config)
        # Like nanoGPT: autocast on CUDA, float32 on a CPU.
        cuda = self.device.type == "cuda"
        self.plain_precision = self.precision if cuda else "float32"
        self.thread_seconds = self._choose_threads()
        self.peaks = {
            precision: self._peak(precision)
            for precision in sorted({"float32", self.precision})
        }
        self.skipped: dict[str, str] = {}

    def configure(self, scale: str, **overrides: Any) -> TrainingConfig:
        """Return the preset on this device, without compilation."""
        settings = {"device": str(self.device), "compile": "off", **overrides}
        return preset(scale, self.corpus_name, **settings)

    def _choose_threads(self) -> dict[str, list[float]]:
        """Set torch's threads to all or one; return the seconds of `plain` by threads.

        On a shared machine all threads wait for the slowest at every operation, so one
        thread can be many times faster. All measurements use the number of threads
        with which the baseline is faster.
        """
        if self.plan.threads is not None:
            torch.set_num_threads(self.plan.threads)
        self.other_threads: int | None = None
        counts = {torch.get_num_threads(), 1}
        if self.plan.threads is not None or self.device.type != "cpu":
            return {}
        trial = [self._plain_loops(str(count), threads=count) for count in counts]
        if len(trial) == 1:
            return {}
        warm_up(trial, self.device)
        take_turns(trial, 3, self.device)
        trial.sort(key=lambda variant: min(variant.seconds))
        best, other = (int(variant.name) for variant in trial)
        torch.set_num_threads(best)
        self.other_threads = other
        say(f"torch threads: {best} (plain is slower with {other})")
        return {variant.name: variant.seconds for variant in trial}

    def _peak(self, precision: str) -> float:
        """Return the highest FLOP/s of matrix products, with one thread or all."""
        threads = torch.get_num_threads()
        best = 0.0
        for count in {threads, self.other_threads or threads}:
            torch.set_num_threads(count)
            peak = matmul_peak(self.device, precision, self.plan.peak_sizes)
            best = max(best, peak)
        torch.set_num_threads(threads)
        return best

    def _loop(self, config: TrainingConfig) -> PlainLoop:
        precision = self.plain_precision
        return PlainLoop(config, self.corpus, self.folder, precision=precision)

    # -------------------------------------------------------------------------- speed

    def training(self) -> dict[str, dict[str, Any]]:
        """Time all variants of training and of whole steps in turns."""
        timed_variants = [*self._plain(), *self._populations(), *self._steps()]
        say(f"{len(timed_variants)} variants, {self.plan.repeats} rounds")
        try:
            warm_up(timed_variants, self.device)
            take_turns(timed_variants, self.plan.repeats, self.device)
        finally:
            for variant in timed_variants:
                variant.close()
        return summarize(timed_variants, self.peaks)

    def _plain(self) -> list[Variant]:
        """Return the plain loop in several settings, and E loops in sequence."""
        make = self._plain_loops
        loops = [make("plain")]
        other = self.other_threads
        if other is not None:
            name = f"plain, {other} thread{'s' if other > 1 else ''}"
            loops.append(make(name, threads=other))
        if self.precision != self.plain_precision:
            loops.append(make(f"plain, {self.precision}", precision=self.precision))
        sizes = [size for size in self.plan.sizes if size > 1]
        return loops + [make(f"plain x {n}, in sequence", size=n) for n in sizes]

    def _plain_loops(self, name: str, **settings: Any) -> Variant:
        given = (self.config, self.corpus, self.iterations, self.folder)
        settings = {"precision": self.plain_precision, **settings}
        return variants.plain(name, *given, reference="plain", **settings)

    def _populations(self) -> list[Variant]:
        """Return ours, eager and compiled, by size."""
        made = []
        compiled = replace(self.config, compile="default")
        for size in self.plan.sizes:
            ways = [(f"population {size}", self.config)]
            if self.plan.compile:
                ways.append((f"population {size}, compiled", compiled))
            made += [
                variants.population(
                    name,
                    config,
                    self.corpus,
                    self.iterations,
                    size=size,
                    reference="plain",
                )
                for name, config in ways
            ]
        return made

    def _steps(self) -> list[Variant]:
        """Return whole steps at one E: SubprocVecEnv and ours."""
        size = self.plan.step_size
        if size == 0:
            return []
        made = []
        given = (self.config, self.corpus, self.iterations)
        reference = f"steps {size}, SubprocVecEnv"
        if variants.has_stable_baselines3():
            made.append(variants.subprocess_steps(reference, *given, size=size))
        else:
            self._skip(reference, "stable-baselines3 is not installed")
        name = f"steps {size}, make_vec"
        made.append(variants.whole_steps(name, *given, size=size, reference=reference))
        return made

    def _skip(self, name: str, reason: str) -> None:
        self.skipped[name] = reason
        say(f"skipped: {name}: {reason}")

    # -------------------------------------------------------------------------- costs

    def evaluation(self) -> dict[str, Any]:
        """Time evaluations; the plain loop trains as long as our run."""
        loop = self._loop(self.config)
        iterations = self.plan.plain_iterations
        loop.train(iterations, self.config.learning_rate)
        return costs.evaluation_cost(
            self.config,
            self.corpus,
            loop,
            batches=self.plan.evaluation_batches,
            repeats=self.plan.repeats,
            iterations=iterations,
        )

    def snapshots(self) -> list[dict[str, Any]]:
        """Time snapshots of the smallest and the largest population."""
        sizes = sorted({min(self.plan.sizes), max(self.plan.sizes)})
        return [
            costs.snapshot_cost(self.config, self.corpus, size, self.plan.repeats)
            for size in sizes
        ]

    def memory(self) -> dict[str, Any]:
        """Measure memory per member, and that of the plain loop."""
        loop = self._loop(self.config)
        return {
            **costs.memory_cost(self.config, self.plan.sizes),
            "plain_state_bytes": loop.state_bytes(),
        }

    def episode(self) -> dict[str, Any]:
        """Time an episode of 20 decisions in the environment and in the plain loop."""
        config = self.configure(self.plan.scale, **self.plan.settings)
        loop = self._loop(config)
        loop.train(2, config.learning_rate)  # warm-up
        part = None if self.plan.full else max(1, self.plan.plain_iterations // 2)

        def run_plain() -> dict[str, Any]:
            batches = self.plan.evaluation_batches
            decisions = -(-config.max_iters // config.eval_interval)
            return costs.plain_episode(loop, decisions, batches=batches, part=part)

        # The plain loop is timed before and after the environment.
        plain = [run_plain()]
        ours = costs.gym_episode(config)
        if part is not None:
            plain.append(run_plain())
        seconds = spread(run["seconds"] for run in plain)
        return {
            "corpus": self.corpus_name,
            "gym": ours,
            "plain": plain,
            "plain_seconds": seconds,
            "extrapolated": part is not None,
            "plain_over_gym": seconds["median"] / ours["seconds"],
        }

    def linear(self) -> dict[str, Any]:
        """Compare the cost per member of two population sizes, at scale tiny."""
        config = self.configure("tiny")
        iterations = self.plan.linear_iterations
        pair = [
            variants.population(f"E={size}", config, self.corpus, iterations, size=size)
            for size in self.plan.linear_sizes
        ]
        warm_up(pair, self.device)
        take_turns(pair, self.plan.repeats, self.device)
        return {
            "seconds_per_member_update": {
                v.name: spread(s / (v.size * iterations) for s in v.seconds)
                for v in pair
            },
            # Above 1 if a member of the larger population costs more.
            "larger_over_smaller": paired_speed(pair[0], pair[1]),
        }

    def widths(self) -> dict[str, dict[str, Any]]:
        """Time models of several widths, otherwise at scale tiny."""
        populations = [
            variants.population(
                f"width {width}",
                self.configure("tiny", n_embd=width, n_head=width // 32),
                self.corpus,
                self.plan.linear_iterations,
                size=self.plan.width_size,
            )
            for width in self.plan.widths
        ]
        warm_up(populations, self.device)
        take_turns(populations, self.plan.repeats, self.device)
        return summarize(populations, self.peaks)


def run(plan: Plan, out: Path, folder: Path) -> Path:
    """Run every section at one scale; print the tables; return the JSON's path.

    Args:
        plan: The measurements.
        out: Folder of the JSON file.
        folder: For temporary files.

    Raises:
        CannotRun: The device is unknown or missing.
    """
    try:
        suite = ScaleSuite(plan, folder)
    except ValueError as error:
        raise CannotRun(str(error)) from error
    config, vocabulary = suite.config, suite.corpus.vocab_size
    report = Report(
        out / f"{suite.device.type}-{plan.scale}.json",
        settings={**asdict(plan), "iterations": suite.iterations},
        training_config=asdict(config),
        precision=suite.precision,
        corpus=suite.corpus.facts(),
        matmul_parameters=matmul_parameters(config, vocabulary),
        flops_per_token=flops_per_token(config, vocabulary),
        matmul_peak_flops_per_second=suite.peaks,
        threads=torch.get_num_threads(),
        plain_slice_seconds_by_threads=suite.thread_seconds,
    )
    report.add("training", suite.training())
    report.add("skipped", suite.skipped)
    for name in ("evaluation", "snapshots", "memory", "episode", "linear", "widths"):
        say(name)
        report.add(name, getattr(suite, name)())
    print(scale_tables(report.content))
    print(f"\n{report.path}")
    return report.path
