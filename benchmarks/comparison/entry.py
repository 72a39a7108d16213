"""The program of `benchmarks/compare_agents.py`: tune or train, test, report."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agents.agent import make_env
from benchmarks.comparison.executors import (
    Executor,
    LostWorkersError,
    ProcessExecutor,
    RayExecutor,
    SerialExecutor,
    run_all,
)
from benchmarks.comparison.figures import draw_episodes, line_styles
from benchmarks.comparison.headline import headline
from benchmarks.comparison.jobs import env_name
from benchmarks.comparison.methods import METHODS, find_method
from benchmarks.comparison.protocol import Protocol, Task, chosen_peak, plan
from benchmarks.comparison.report import write_report
from benchmarks.comparison.summary import Row, methods_of, tested_runs, write_summary
from lr_gym.devices import resolve_device, resolve_scale
from lr_gym.files import only_process, parse_json, write_text
from lr_gym.validation import check_count, check_real

QUICK_AGENTS = (
    "constant",
    "cosine",
    "linear",
    "wsd",
    "plateau",
    "random",
    "q_paper",
    "q_improved",
    "ppo",
    "as_published",
)
QUICK = Protocol(
    peaks=(0.5, 1.0, 2.0, 4.0),
    tune_seeds=(1_000, 1_001),
    test_seeds=tuple(range(8)),  # with fewer every call is open
    learners=2,
    widen=2,
)
MAX_CURVES = 6  # in the figure
MAX_COUNT = 100_000  # of seeds and other things that the command line counts
FINALISTS = 4  # the best methods, tested again at the scale of --final


@dataclass
class Args:
    """Tune or train, test, and report."""

    env: tuple[str, ...] = ("markov",)
    """Corpora: markov, shakespeare, enwik8, text8, or text files' paths."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """Size of the model and length of a run; auto is paper on CUDA, else mini."""
    architecture: Literal["gpt", "lstm", "conv"] | None = None
    """Of the model; default gpt."""
    agents: tuple[str, ...] | None = None
    """Names (default: all), your own as module:Class or file.py:Class, a saved Q-table
    (.json), a policy (.safetensors), or a model of agents/deep_rl.py (.zip)."""
    seeds: int | None = None
    """Test runs per method and corpus; default 10."""
    tune_seeds: int | None = None
    """Tuning runs per peak; default 3."""
    peaks: tuple[float, ...] | None = None
    """Peaks tried, as multiples of the scale's rate; default 1/8 to 16."""
    learners: int | None = None
    """Independent trainings of every learning agent; default 5."""
    settings: str = "{}"
    """Further keywords of gym.make for every method, as JSON."""
    samples: int = 1
    """Texts of 500 characters generated per method, to time inference."""
    final: Literal["none", "mini", "paper"] = "none"
    """A larger scale at which the winners are tuned again, over 3 peaks, and tested, on
    the first corpus."""
    workers: int | None = None
    """Processes; default: one per core, or a single one with a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to run on; local starts one here."""
    gpus: float = 0.0
    """With --ray: share of a GPU that a job needs."""
    tensorboard: bool = False
    """Also write curves for TensorBoard, to OUT/tensorboard."""
    out: Path | None = None
    """Output folder; default results/compare/ENV-SCALE, or ENV-SCALE-ARCHITECTURE."""
    fresh: bool = False
    """Run jobs again that were made by other code; old files move to OUT/jobs/old."""
    quick: bool = False
    """Ten methods, four peaks, eight seeds: minutes."""


def make_protocol(args: Args) -> Protocol:
    """Return the protocol that the arguments ask for.

    Raises:
        ValueError: An argument is out of range; the message names it.
    """
    protocol = QUICK if args.quick else Protocol()
    for name in ("seeds", "tune_seeds", "learners", "samples", "workers"):
        value = getattr(args, name)
        if value is not None:
            check_count(f"--{name.replace('_', '-')}", value, MAX_COUNT)
    if args.seeds is not None:
        protocol = replace(protocol, test_seeds=tuple(range(args.seeds)))
    if args.tune_seeds is not None:
        seeds = tuple(1_000 + seed for seed in range(args.tune_seeds))
        protocol = replace(protocol, tune_seeds=seeds)
    if args.learners is not None:
        protocol = replace(protocol, learners=args.learners)
    if args.peaks is not None:
        peaks = tuple(sorted(set(args.peaks)))
        for peak in peaks:
            check_real("--peaks", peak, 0.0, low_open=True)
        if len(peaks) < 2:
            raise ValueError(
                f"--peaks must be two or more numbers above 0, got {args.peaks}"
            )
        protocol = replace(protocol, peaks=peaks)
    return protocol


def read_settings_option(text: str) -> dict[str, Any]:
    """Return the keywords in ``--settings``; raise ValueError if they are wrong."""
    try:
        settings = parse_json(text)
    except ValueError as error:
        raise ValueError(f"--settings must be JSON, got {text!r}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"--settings must be a JSON object, got {text!r}")
    return settings


def make_tasks(args: Args, methods: tuple[str, ...]) -> list[Task]:
    """Return a task per corpus; every method's settings are tried on the first.

    Raises:
        ValueError: An argument is wrong; the message names it.
    """
    settings = read_settings_option(args.settings)
    if args.architecture not in (None, settings.get("architecture", args.architecture)):
        raise ValueError(
            f"--architecture {args.architecture} contradicts --settings, which say "
            f"{settings['architecture']!r}"
        )
    if args.architecture not in (None, "gpt"):  # the default is not part of a job
        settings["architecture"] = args.architecture
    for values, flag in ((methods, "agents"), (args.env, "env")):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"--{flag} must name each once, got {values}")
    scale = resolve_scale(args.scale, settings.get("device", "auto"))
    tasks = [Task(env, {"scale": scale, **settings}) for env in args.env]
    for name in methods:  # wrong names and settings fail before any training
        method_settings = find_method(name).make(0).settings
        make_env(args.env[0], **{**method_settings, **tasks[0].settings}).close()
    for task in tasks[1:]:
        make_env(task.env, **task.settings).close()
    return tasks


def make_executor(args: Args, device: str) -> Executor:
    """Return the executor that the arguments ask for."""
    if args.ray is not None:
        return RayExecutor(args.ray, gpus=args.gpus)
    cpu = resolve_device(device).type == "cpu"
    workers = args.workers or ((os.cpu_count() or 1) if cpu else 1)
    return ProcessExecutor(workers) if workers > 1 else SerialExecutor()


def finalists(rows: list[Row]) -> tuple[str, ...]:
    """Return the methods of --final: the best, the best agent, and three schedules."""
    methods = methods_of(rows)
    names = [row.label for row in methods if row.run_cost == 1][:FINALISTS]
    names += [row.label for row in methods if row.kind == "agent"][:1]
    schedules = ("linear", "cosine", "constant")
    names += [row.label for row in methods if row.label in schedules]
    return tuple(dict.fromkeys(names))


def final_plan(
    tasks: list[Task],
    methods: tuple[str, ...],
    protocol: Protocol,
    done: dict[str, dict[str, Any]],
    args: Args,
) -> tuple[list[Task], Protocol]:
    """Return the first task at the scale of --final, and peaks around those tuned."""
    first = tasks[0]
    centers = {}
    for name in methods:
        method = find_method(name)
        rate = None if method.learns else chosen_peak(first, name, protocol, done)[0]
        if rate is not None:
            centers[name] = rate / protocol.base_rate(first, method)
    larger = [Task(first.env, {**first.settings, "scale": args.final})]
    fewer = replace(
        protocol,
        peaks=(0.5, 1.0, 2.0),
        tune_seeds=protocol.tune_seeds[:2],
        test_seeds=protocol.test_seeds[:8],
        learners=min(protocol.learners, 2),
        widen=1,
        centers=centers,
    )
    return larger, fewer


def main(args: Args) -> Path:
    """Run what is missing; write summaries and reports; return the report."""
    methods = args.agents or (QUICK_AGENTS if args.quick else tuple(METHODS))
    find_method.cache_clear()  # an agent's file may have changed in this session
    try:
        protocol = make_protocol(args)
        tasks = make_tasks(args, methods)
        scale = tasks[0].settings["scale"]
        names = "-".join(env_name(env) for env in args.env)
        kind = tasks[0].settings.get("architecture", "gpt")
        suffix = "" if kind == "gpt" else f"-{kind}"
        folder = args.out or Path(f"results/compare/{names}-{scale}{suffix}")
        with only_process(folder / ".running"):
            return compare(tasks, methods, protocol, folder, args)
    except (ValueError, TypeError, OSError, ImportError, LostWorkersError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(
            f"interrupted: finished jobs are kept in {folder}/jobs, and the same "
            "command continues"
        ) from None


def compare(
    tasks: list[Task],
    methods: tuple[str, ...],
    protocol: Protocol,
    folder: Path,
    args: Args,
) -> Path:
    """Run what is missing in `folder`, publish, and return the report."""
    device = str(tasks[0].settings.get("device", "auto"))
    jobs = partial(plan, tasks, methods, protocol, samples=args.samples)
    executor = make_executor(args, device)
    done = run_all(jobs, folder / "jobs", executor, fresh=args.fresh)
    report, rows = publish(folder, list(done.values()), protocol, args)
    if args.final != "none":
        best = finalists(rows)
        larger, fewer = final_plan(tasks, best, protocol, done, args)
        jobs = partial(plan, larger, best, fewer, samples=args.samples)
        executor = make_executor(args, device)
        done = run_all(jobs, folder / "jobs", executor, fresh=args.fresh)
        report, _ = publish(folder / "final", list(done.values()), fewer, args)
    return report


def publish(
    folder: Path, records: list[dict[str, Any]], protocol: Protocol, args: Args
) -> tuple[Path, list[Row]]:
    """Write summary and report of `records`; print the headline; return both."""
    rows = write_summary(folder, records)
    command = shlex.join(["python", "benchmarks/compare_agents.py", *sys.argv[1:]])
    report = write_report(folder / "report.html", records, rows, protocol, command)
    shown = list(line_styles(rows))[:MAX_CURVES]
    write_text(folder / "curves.svg", draw_episodes(records, shown))
    if args.tensorboard:
        from benchmarks.event_files import write_curves

        write_curves(folder / "tensorboard", tested_runs(records))
    width = max(len(row.label) for row in rows)
    for row in rows:
        losses = "  ".join(f"{loss:.4f}" for loss in row.test_loss.values())
        print(f"  {row.label:{width}}  {losses}  {row.call}")
    print()
    for name, value in headline(rows).items():
        print(f"  {name}: {value}")
    print(f"\nreport: {report}")
    return report, rows
