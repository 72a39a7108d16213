"""Everything that throughput.py measures at one scale, on a CPU as a rule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import costs, variants
from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.throughput_tables import scale_tables
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
    """What is run, and how much of it."""

    quick: bool = False  # a smoke run: its numbers mean nothing
    scale: str = "mini"
    device: str = "auto"
    compile: bool = False  # also compiled populations
    full: bool = False  # the plain loop's whole episode, not a part
    threads: int | None = None  # of torch; `None`: those plain is faster with
    iterations: int | None = None  # updates per member in a slice
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    repeats: int = 7
    step_size: int = 8
    evaluation_batches: int = 200  # as in the paper's code
    plain_iterations: int = 60  # timed of a whole episode
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
    """One scale on this machine: what all sections share."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Settle the configuration and measure the machine."""
        self.plan = plan
        self.iterations = plan.iterations or ITERATIONS[plan.scale]
        self.folder = folder  # of the plain loop's token files
        self.device = resolve_device(plan.device)
        self.corpus_name = real_text_or_markov()
        self.config = self.configure(plan.scale)
        self.corpus = load_corpus(self.corpus_name)
        self.precision = variants.resolved_precision(self.config)
        # As nanoGPT does: autocast on CUDA, float32 on a CPU.
        cuda = self.device.type == "cuda"
        self.plain_precision = self.precision if cuda else "float32"
        self.thread_seconds = self._choose_threads()
        self.peaks = {
            precision: self._peak(precision)
            for precision in sorted({"float32", self.precision})
        }
        self.skipped: dict[str, str] = {}

    def configure(self, scale: str, **overrides: Any) -> TrainingConfig:
        """Return the preset on our device, eager."""
        given = {"device": str(self.device), "compile": "off", **overrides}
        return preset(scale, self.corpus_name, **given)

    def _choose_threads(self) -> dict[str, list[float]]:
        """Set torch's threads to all or one; return what a slice of plain took.

        Where something else runs on the machine, as on shared ones, all threads wait
        for the slowest at every operation, and one thread alone can be many times as
        fast. What is faster for the baseline is used for everything.
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
        """Return the best matrix product by one thread or all, FLOP/s."""
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

    # ------------------------------------------------------------------- who is faster

    def training(self) -> dict[str, dict[str, Any]]:
        """Let all variants of training, and of whole steps, take turns."""
        taking_part = [*self._plain(), *self._populations(), *self._steps()]
        say(f"{len(taking_part)} variants, {self.plan.repeats} rounds")
        try:
            warm_up(taking_part, self.device)
            take_turns(taking_part, self.plan.repeats, self.device)
        finally:
            for variant in taking_part:
                variant.close()
        return summarize(taking_part, self.peaks)

    def _plain(self) -> list[Variant]:
        """Return one loop, also as others run it; and E loops in sequence."""
        make = self._plain_loops
        made = [make("plain")]
        other = self.other_threads
        if other is not None:
            name = f"plain, {other} thread{'s' if other > 1 else ''}"
            made.append(make(name, threads=other))
        if self.precision != self.plain_precision:
            made.append(make(f"plain, {self.precision}", precision=self.precision))
        sizes = [size for size in self.plan.sizes if size > 1]
        return made + [make(f"plain x {n}, in sequence", size=n) for n in sizes]

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

    # ------------------------------------------------------------------ what it costs

    def evaluation(self) -> dict[str, Any]:
        """Time evaluations; the plain loop is trained as long as our run."""
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
        """Time snapshots of the least and the largest population."""
        sizes = sorted({min(self.plan.sizes), max(self.plan.sizes)})
        return [
            costs.snapshot_cost(self.config, self.corpus, size, self.plan.repeats)
            for size in sizes
        ]

    def memory(self) -> dict[str, Any]:
        """Measure memory per member, beside the plain loop's."""
        loop = self._loop(self.config)
        return {
            **costs.memory_cost(self.config, self.plan.sizes),
            "plain_state_bytes": loop.state_bytes(),
        }

    def episode(self) -> dict[str, Any]:
        """Time an episode of 20 decisions in the gym and as a plain loop."""
        config = self.configure(self.plan.scale, **self.plan.settings)
        loop = self._loop(config)
        loop.train(2, config.learning_rate)  # warm-up
        part = None if self.plan.full else max(1, self.plan.plain_iterations // 2)

        def run_plain() -> dict[str, Any]:
            batches = self.plan.evaluation_batches
            decisions = -(-config.max_iters // config.eval_interval)
            return costs.plain_episode(loop, decisions, batches=batches, part=part)

        # Half of the plain loop's part before the gym's episode, half of it after.
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
        """Compare the cost per member of two sizes of population, at scale tiny."""
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
            # Above 1: a member of the larger population costs more.
            "larger_over_smaller": paired_speed(pair[0], pair[1]),
        }

    def widths(self) -> dict[str, dict[str, Any]]:
        """Compare widths of the model, at scale tiny otherwise."""
        made = [
            variants.population(
                f"width {width}",
                self.configure("tiny", n_embd=width, n_head=width // 32),
                self.corpus,
                self.plan.linear_iterations,
                size=self.plan.width_size,
            )
            for width in self.plan.widths
        ]
        warm_up(made, self.device)
        take_turns(made, self.plan.repeats, self.device)
        return summarize(made, self.peaks)


def run(plan: Plan, out: Path, folder: Path) -> Path:
    """Run every section at one scale; print the tables; return the JSON's path.

    Args:
        plan: What is run.
        out: Where the JSON file goes.
        folder: For temporary files.

    Raises:
        CannotRun: The device is unknown or absent.
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
