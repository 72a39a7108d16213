"""The runs that compare a controller with tuned schedules on lists of instances.

Instances of one corpus, size and horizon form a cell. They differ only in their wrong
initial learning rate, so their runs share a population. A method that ignores this
learning rate runs once per cell. All methods have the same test seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.comparison.jobs import Job
from benchmarks.comparison.methods import find_method
from benchmarks.comparison.protocol import (
    Protocol,
    Records,
    Task,
    chosen_peak,
    tuning_losses,
)
from benchmarks.comparison.protocol import plan as tuning_plan
from benchmarks.controller.rate_jobs import rate_job
from lr_gym.config import ARCHITECTURES, TrainingConfig, preset
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.instances import Instance
from lr_gym.validation import check_choice, check_count, check_keys, field_names

SCHEDULES = ("cosine", "linear", "wsd")
OWN_START = (*SCHEDULES, "plateau", "greedy_lr", "ramp_and_undo", "constant", "random")
# Learning rates that are default or recommended in the authors' code.
RECOMMENDED = {"schedule_free": 2.5e-3, "prodigy": 1.0}
RIVALS = (*OWN_START, *RECOMMENDED)
TUNED = "tuned per instance"
ONE_SETTING = "one setting for all"
TRANSFERRED = "transferred by muP"  # from the best setting of the narrow model
NARROW = 32
GRID_CENTER = 8e-3  # of the peaks that are tuned; the same on all instances


@dataclass(frozen=True, kw_only=True)
class ListedInstance(Instance):
    """An instance of a list, which can also name a model and how often to evaluate.

    Attributes:
        architecture: As in `TrainingConfig`.
        evaluations: Of a run; `None` is as many as the preset has.
    """

    architecture: str = "gpt"
    evaluations: int | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        check_choice("architecture", self.architecture, ARCHITECTURES)
        if self.evaluations is not None:
            check_count("evaluations", self.evaluations, self.max_iters)


@dataclass(frozen=True)
class Cell:
    """Instances that differ only in their initial learning rate.

    Attributes:
        task: Corpus, model, batch, horizon and decisions.
        instances: At least one.
    """

    task: Task
    instances: tuple[ListedInstance, ...]


@dataclass(frozen=True)
class Entry:
    """One job of a method on a cell.

    Attributes:
        label: The row of the table.
        cell: The cell.
        job: Its runs: instances x seeds, in this order, or only seeds.
        by_instance: Whether the runs start from the instances' learning rates.
    """

    label: str
    cell: Cell
    job: Job
    by_instance: bool


@dataclass(frozen=True)
class Suite:
    """All runs of a benchmark.

    Tuned schedules, one setting for all and the controllers' replays always run. An
    optimizer that sets its own rate has no replay.

    Attributes:
        cells: The instances.
        controllers: Controllers under test.
        protocol: Seeds and peaks.
        rivals: Further methods, of `RIVALS` and `TRANSFERRED`.
    """

    cells: tuple[Cell, ...]
    controllers: tuple[str, ...]
    protocol: Protocol
    rivals: tuple[str, ...] = RIVALS

    def plan(self, done: Records) -> list[Job]:
        """Return the jobs that are known so far, finished jobs included."""
        cells = list(self.cells)
        if TRANSFERRED in self.rivals:
            cells += map(narrow, self.cells)
        jobs = [
            job
            for cell in cells
            for job in tuning_plan([cell.task], SCHEDULES, self.protocol, done)
            if job.phase == "tune"
        ]
        jobs += [entry.job for entry in self.entries(done)]
        return list({job.file_name: job for job in jobs}.values())

    def entries(self, done: Records) -> list[Entry]:
        """Return the jobs of every method on every cell that are known so far."""
        entries = []
        for cell in self.cells:
            own_start = [name for name in OWN_START if name in self.rivals]
            for name in dict.fromkeys((*self.controllers, *own_start)):
                entry = self._own_start(name, cell)
                entries.append(entry)
                if name in self.controllers and find_method(name).optimizer is None:
                    entries += self._replay(entry, done)
            for name, rate in RECOMMENDED.items():
                if name not in self.rivals:
                    continue
                job = self._rate_job(name, cell, rate)
                entries.append(Entry(name, cell, job, by_instance=False))
            best = self.tuned(cell, done)
            if best is not None:
                job = self._rate_job(best[0], cell, best[1])
                entries.append(Entry(TUNED, cell, job, by_instance=False))
            entries += self._transferred(cell, done)
        common = self.one_setting(done)
        if common is not None:
            for cell in self.cells:
                job = self._rate_job(common[0], cell, common[1])
                entries.append(Entry(ONE_SETTING, cell, job, by_instance=False))
        return entries

    def tuned(self, cell: Cell, done: Records) -> tuple[str, float] | None:
        """Return the schedule and peak with the lowest tuning loss on `cell`."""
        table = self._tuning_table(cell, done)
        return None if table is None else min(table, key=table.__getitem__)

    def one_setting(self, done: Records) -> tuple[str, float] | None:
        """Return the schedule and peak with the lowest mean regret over the cells."""
        total: dict[tuple[str, float], float] = {}
        for cell in self.cells:
            table = self._tuning_table(cell, done)
            if table is None:
                return None
            best = min(table.values())
            for setting, loss in table.items():
                total[setting] = total.get(setting, 0.0) + loss - best
        return min(total, key=total.__getitem__)

    def _tuning_table(
        self, cell: Cell, done: Records
    ) -> dict[tuple[str, float], float] | None:
        """Return the tuning loss of every schedule and peak; None before all ran."""
        table: dict[tuple[str, float], float] = {}
        for name in SCHEDULES:
            _, rates = chosen_peak(cell.task, name, self.protocol, done)
            losses = tuning_losses(cell.task, name, rates, self.protocol, done)
            if losses is None:
                return None
            table |= {(name, r): x for r, x in zip(rates, losses, strict=True)}
        return table

    def _transferred(self, cell: Cell, done: Records) -> list[Entry]:
        """Return the job at the rate of the narrow model, by muP's rule for Adam.

        All layers have this rate, as with the other methods, those too for which muP
        has another rule.
        """
        small = narrow(cell)
        best = self.tuned(small, done) if TRANSFERRED in self.rivals else None
        if best is None:
            return []
        widths = [c.task.settings["n_embd"] for c in (small, cell)]
        job = self._rate_job(best[0], cell, best[1] * widths[0] / widths[1])
        return [Entry(TRANSFERRED, cell, job, by_instance=False)]

    def _own_start(self, name: str, cell: Cell) -> Entry:
        rates = [instance.learning_rate for instance in cell.instances]
        return Entry(name, cell, self._rate_job(name, cell, *rates), by_instance=True)

    def _rate_job(self, name: str, cell: Cell, *learning_rates: float) -> Job:
        return rate_job(cell.task, name, learning_rates, self.protocol.test_seeds)

    def _replay(self, entry: Entry, done: Records) -> list[Entry]:
        """Return the replay of an entry's mean curves, one per instance.

        The curve is the geometric mean over the longest runs of an instance: all runs,
        unless some diverged. The replay is unknown until the entry has run.
        """
        record = done.get(entry.job.file_name)
        if record is None:
            return []
        curves = [run["curves"]["learning_rate"] for run in record["runs"]]
        count = len(self.protocol.test_seeds)
        script: list[tuple[float, ...]] = []
        for first in range(0, len(curves), count):
            of_instance = curves[first : first + count]
            longest = max(map(len, of_instance))
            whole = [np.log(curve) for curve in of_instance if len(curve) == longest]
            mean = np.exp(np.mean(whole, axis=0))
            # A job's name depends on the curve, whose last bits depend on the CPU.
            rounded = tuple(float(f"{rate:.6g}") for rate in mean)
            script += [rounded] * count
        label = f"{entry.label} (open loop)"
        replay = entry.cell.task.job(
            entry.job.method, "open_loop", entry.job.seeds, script=tuple(script)
        )
        return [Entry(label, entry.cell, replay, by_instance=True)]


def narrow(cell: Cell) -> Cell:
    """Return the cell's task with a model of width `NARROW`."""
    shape = cell.task.settings
    heads = max(1, NARROW * shape["n_head"] // shape["n_embd"])
    settings = {**shape, "n_head": heads, "n_embd": NARROW}
    return Cell(Task(cell.task.env, settings), cell.instances)


def make_cells(
    instances: Sequence[Instance], scale: str, settings: dict[str, Any]
) -> tuple[Cell, ...]:
    """Return `instances` by cell.

    Args:
        instances: The list of tasks.
        scale: The preset of the fields that an instance leaves open.
        settings: Further keywords of `gym.make`; they override the preset.

    Raises:
        TypeError: A setting is unknown.
        ValueError: An instance does not fit the preset.
    """
    groups: dict[tuple[Any, ...], list[ListedInstance]] = {}
    for instance in instances:
        listed = ListedInstance(**asdict(instance))
        same = {**asdict(listed), "good_lr": 0.0, "lr_factor": 0.0}
        key = tuple(same.values())
        groups.setdefault(key, []).append(listed)
    return tuple(
        Cell(_task(group[0], scale, settings), tuple(group))
        for group in groups.values()
    )


def _task(instance: ListedInstance, scale: str, settings: dict[str, Any]) -> Task:
    """Return the task of a cell; decisions are at the same shares of any horizon."""
    training_fields, mdp_fields = field_names(TrainingConfig), field_names(MDPConfig)
    check_keys("--settings", settings, training_fields + mdp_fields)
    training = {k: v for k, v in settings.items() if k in training_fields}
    base = preset(scale, instance.corpus, **training)
    share = instance.max_iters / base.max_iters
    config = MDPConfig(**{k: v for k, v in settings.items() if k in mdp_fields})
    dense = config.dense_interval
    shape = instance.training_config(base)
    interval = base.eval_interval * share
    if instance.evaluations is not None:
        interval = instance.max_iters / instance.evaluations
    # The names of archived jobs depend on their settings: a gpt is not named.
    other = (
        {}
        if instance.architecture == "gpt"
        else {"architecture": instance.architecture}
    )
    return Task(
        instance.corpus,
        {
            "scale": scale,
            **settings,
            **other,
            "n_layer": shape.n_layer,
            "n_head": shape.n_head,
            "n_embd": shape.n_embd,
            "batch_size": shape.batch_size,
            "max_iters": instance.max_iters,
            "eval_interval": max(1, round(interval)),
            "dense_interval": max(1, round(dense * share)),
            "learning_rate": GRID_CENTER,
        },
    )


def core_seconds(suite: Suite, done: Records) -> float:
    """Return the seconds of all jobs; each has one thread."""
    return sum(float(done[job.file_name]["seconds"]) for job in suite.plan(done))


def trainings(suite: Suite, done: Records, phase: str) -> int:
    """Return the number of trainings in the jobs of a phase."""
    jobs = [job for job in suite.plan(done) if job.phase == phase]
    return sum(len(job.seeds) * find_method(job.method).cost for job in jobs)
