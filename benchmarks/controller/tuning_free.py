"""The regret of an untuned controller to schedules tuned for each task.

    python -m benchmarks.controller.tuning_free
    python -m benchmarks.controller.tuning_free --quick

The default tasks are `lr_gym.HELD_OUT`: three corpora, two sizes, two horizons, initial
learning rates wrong by 1/30 to 30. Each controller is compared with

- the best of cosine, linear and WSD tuned per instance (8 peaks each: 24 trainings),
- the one setting of a schedule that is best over all instances,
- schedules and rules that start from the instance's learning rate,
- optimizers at their recommended settings,
- the replay of the controller's mean learning-rate curve.

Each finished job is a file. The same command continues an interrupted benchmark. To
judge another controller by the archived runs, unpack ``jobs.tar.xz`` in the output
folder, name the controller, and pass ``--mixed`` if the code since then changes no
number of theirs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from agents.command_line import parse_command_line
from benchmarks.comparison.entry import read_settings_option
from benchmarks.comparison.executors import run_all
from benchmarks.comparison.fixed_plan import (
    check_counts,
    make_executor,
    one_line_job_errors,
)
from benchmarks.comparison.methods import find_method
from benchmarks.comparison.protocol import Protocol
from benchmarks.controller.instance_jobs import (
    GRID_CENTER,
    RIVALS,
    TRANSFERRED,
    ListedInstance,
    Suite,
    core_seconds,
    make_cells,
    trainings,
)
from benchmarks.controller.instance_report import judge, run_lines, write_results
from benchmarks.controller.rate_jobs import RunOptions
from lr_gym.devices import resolve_scale
from lr_gym.files import parse_json, read_file
from lr_gym.mdp.instances import HELD_OUT, Instance
from lr_gym.validation import check_complete, check_keys, field_names

PEAKS = tuple(2.0**k for k in range(-4, 4))  # of 8e-3: 5e-4 to 6.4e-2
TUNE_SEEDS = tuple(range(1_000, 1_010))
QUICK = (0, 3, 6)  # three initial learning rates of one corpus, size and horizon


@dataclass
class Args(RunOptions):
    """Run unfinished jobs, compute regrets, write the results."""

    controllers: tuple[str, ...] = ("update_size",)
    """Names that compare_agents.py --agents takes, or paths of policy files."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """The preset of what instances leave open; the held-out lists are for tiny."""
    instances: Path | None = None
    """A JSON list of instances; default: lr_gym.HELD_OUT."""
    only: tuple[int, ...] | None = None
    """Indices of the instances to take; default all."""
    rivals: tuple[str, ...] = RIVALS
    """Methods besides tuned schedules and one setting for all."""
    seeds: int = 5
    """Test runs per instance."""
    tune_seeds: int = 1
    """Tuning runs per schedule and peak, at most 10; 1 is 24 trainings in all."""
    out: Path = Path("results/tuning_free")
    """Output folder."""
    mixed: bool = False
    """Run missing jobs beside finished ones of other code, which computes the same."""
    quick: bool = False
    """Three instances, two seeds, four peaks: minutes."""


def read_instances(args: Args) -> list[Instance]:
    """Return the instances that the arguments name.

    Raises:
        ValueError: No instance is left, or the file is not a list of instances.
    """
    instances = list(HELD_OUT)
    if args.instances is not None:
        try:
            listed = parse_json(read_file(args.instances))
        except ValueError as error:
            raise ValueError(f"--instances must be JSON: {error}") from error
        if not isinstance(listed, list) or not all(isinstance(x, dict) for x in listed):
            raise ValueError("--instances must be a JSON list of objects")
        for fields in listed:
            allowed, needed = field_names(ListedInstance), field_names(Instance)
            check_keys("--instances", fields, allowed)
            check_complete("--instances", [n for n in fields if n in needed], needed)
        instances = [ListedInstance(**fields) for fields in listed]
    only = QUICK if args.quick and args.only is None else args.only
    if only is not None:
        unknown = [n for n in only if not 0 <= n < len(instances)]
        if unknown:
            raise ValueError(
                f"--only must be from 0 to {len(instances) - 1}, got {unknown[0]}"
            )
        instances = [instances[number] for number in dict.fromkeys(only)]
    if not instances:
        raise ValueError("no instance is left: --instances or --only is empty")
    return instances


def make_suite(args: Args) -> Suite:
    """Return all runs of the benchmark.

    Raises:
        ValueError: An argument is out of range; the message names it.
        TypeError: A setting is unknown.
    """
    check_counts(args, "seeds", "tune_seeds", "workers")
    if args.tune_seeds > len(TUNE_SEEDS):
        raise ValueError(
            f"--tune-seeds must be at most {len(TUNE_SEEDS)}, got {args.tune_seeds}"
        )
    allowed = (*RIVALS, TRANSFERRED)
    unknown = [name for name in args.rivals if name not in allowed]
    if unknown:
        raise ValueError(
            f"--rivals must be of {', '.join(allowed)}; got {unknown[0]!r}"
        )
    settings = read_settings_option(args.settings)
    if not args.controllers:
        raise ValueError("--controllers must name one or more")
    for name in args.controllers:
        if find_method(name).learns:
            raise ValueError(
                f"--controllers: {name} has still to learn; train it first"
            )
    protocol = Protocol(
        peaks=PEAKS[2:6] if args.quick else PEAKS,
        tune_seeds=TUNE_SEEDS[: args.tune_seeds],
        test_seeds=tuple(range(2 if args.quick else args.seeds)),
        widen=0,
    )
    scale = resolve_scale(args.scale, settings.get("device", "auto"))
    cells = make_cells(read_instances(args), scale, settings)
    controllers = tuple(dict.fromkeys(args.controllers))
    return Suite(cells, controllers, protocol, args.rivals)


def main(args: Args) -> dict[str, Any]:
    """Run, compute regrets, write; return the content of tuning_free.json."""
    with one_line_job_errors():
        suite = make_suite(args)
        folder = args.out / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        device = str(suite.cells[0].task.settings.get("device", "auto"))
        executor = make_executor(args, device)
        done = run_all(suite.plan, folder, executor, fresh=args.fresh, mixed=args.mixed)
        lines = run_lines(suite, done)
        common = suite.one_setting(done)
        result = {
            "scale": suite.cells[0].task.settings["scale"],
            "instances": [
                {**asdict(instance), "tuned": suite.tuned(cell, done)}
                for cell in suite.cells
                for instance in cell.instances
            ],
            "one_setting": common,
            "seeds": list(suite.protocol.test_seeds),
            "peaks": [GRID_CENTER * peak for peak in suite.protocol.peaks],
            "tuning_trainings_per_instance": 3 * suite.protocol.budget,
            "trainings": {
                phase: trainings(suite, done, phase)
                for phase in ("tune", "test", "open_loop")
            },
            "core_seconds": core_seconds(suite, done),
            "controllers": {name: judge(lines, name) for name in suite.controllers},
        }
        result = write_results(args.out, result, lines)
    return result


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
