"""Which runs a tuning-free controller is judged by, and what it is compared with.

Instances of one corpus, size and horizon form a cell: they differ in their wrong
initial rate alone, so that their runs share a population, and what does not start from
that rate is run once for all of them. All runs test on the same seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from lr_gym.config import TrainingConfig, preset
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.instances import Instance
from lr_gym.validation import check_keywords, field_names

SCHEDULES = ("cosine", "linear", "wsd")
OWN_START = (*SCHEDULES, "plateau", "greedy_lr", "ramp_and_undo", "constant", "random")
# Learning rates that their authors' code has as default or asks for.
RECOMMENDED = {"schedule_free": 2.5e-3, "prodigy": 1.0}
RIVALS = (*OWN_START, *RECOMMENDED)
TUNED = "tuned per instance"
ONE_SETTING = "one setting for all"
GRID = 8e-3  # the middle of the peaks tried, the same for all, whatever their good rate


@dataclass(frozen=True)
class Cell:
    """Instances that differ in their initial rate alone.

    Attributes:
        task: Corpus, model, batch, horizon and decisions.
        instances: At least one.
    """

    task: Task
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Entry:
    """One job of a label on a cell.

    Attributes:
        label: The row of the table.
        cell: Where.
        job: Its runs are instances x seeds in this order, or seeds alone.
        by_instance: Whether it starts from the instances' own rates.
    """

    label: str
    cell: Cell
    job: Job
    by_instance: bool


@dataclass(frozen=True)
class Suite:
    """Everything that is run: cells, controllers under test, seeds and peaks.

    Tuned schedules, one setting for all and the controllers' replays are always run;
    `rivals`, of `RIVALS`, beside them.
    """

    cells: tuple[Cell, ...]
    controllers: tuple[str, ...]
    protocol: Protocol
    rivals: tuple[str, ...] = RIVALS

    def plan(self, done: Records) -> list[Job]:
        """Return all jobs known so far, finished ones among them, each once."""
        jobs = [
            job
            for cell in self.cells
            for job in tuning_plan([cell.task], SCHEDULES, self.protocol, done)
            if job.phase == "tune"
        ]
        jobs += [entry.job for entry in self.entries(done)]
        return list({job.file_name: job for job in jobs}.values())

    def entries(self, done: Records) -> list[Entry]:
        """Return every label's job on every cell, as far as they are known."""
        found = []
        for cell in self.cells:
            own_start = [name for name in OWN_START if name in self.rivals]
            for name in dict.fromkeys((*self.controllers, *own_start)):
                entry = self._own_start(name, cell)
                found.append(entry)
                if name in self.controllers:
                    found += self._replay(entry, done)
            for name, rate in RECOMMENDED.items():
                if name not in self.rivals:
                    continue
                job = self._from_rate(name, cell, rate)
                found.append(Entry(name, cell, job, by_instance=False))
            best = self.tuned(cell, done)
            if best is not None:
                job = self._from_rate(best[0], cell, best[1])
                found.append(Entry(TUNED, cell, job, by_instance=False))
        common = self.one_setting(done)
        if common is not None:
            for cell in self.cells:
                job = self._from_rate(common[0], cell, common[1])
                found.append(Entry(ONE_SETTING, cell, job, by_instance=False))
        return found

    def tuned(self, cell: Cell, done: Records) -> tuple[str, float] | None:
        """Return the schedule and peak with the lowest tuning loss on `cell`."""
        table = self._tuning_table(cell, done)
        return None if table is None else min(table, key=table.__getitem__)

    def one_setting(self, done: Records) -> tuple[str, float] | None:
        """Return the schedule and peak that lose least to each cell's own, on mean."""
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
        """Return the mean tuning loss of every schedule and peak, once all are run."""
        table: dict[tuple[str, float], float] = {}
        for name in SCHEDULES:
            _, rates = chosen_peak(cell.task, name, self.protocol, done)
            losses = tuning_losses(cell.task, name, rates, self.protocol, done)
            if losses is None:
                return None
            table |= {(name, r): x for r, x in zip(rates, losses, strict=True)}
        return table

    def _own_start(self, name: str, cell: Cell) -> Entry:
        seeds = self.protocol.test_seeds
        rates = tuple(i.learning_rate for i in cell.instances for _ in seeds)
        runs = seeds * len(cell.instances)
        job = cell.task.job(name, "test", runs, learning_rates=rates)
        return Entry(name, cell, job, by_instance=True)

    def _from_rate(self, name: str, cell: Cell, rate: float) -> Job:
        seeds = self.protocol.test_seeds
        return cell.task.job(name, "test", seeds, learning_rates=(rate,) * len(seeds))

    def _replay(self, entry: Entry, done: Records) -> list[Entry]:
        """Return the replay of `entry`'s mean curves, one per instance, once it is run.

        A run's rate follows the geometric mean over those runs of its instance that
        lasted longest: all of them, unless some diverged.
        """
        record = done.get(entry.job.file_name)
        if record is None:
            return []
        curves = [run["curves"]["learning_rate"] for run in record["runs"]]
        count = len(self.protocol.test_seeds)
        script: list[tuple[float, ...]] = []
        for first in range(0, len(curves), count):
            own = curves[first : first + count]
            longest = max(map(len, own))
            whole = [np.log(curve) for curve in own if len(curve) == longest]
            mean = np.exp(np.mean(whole, axis=0))
            # The last bits hang on the processor, and the job's name on the curve.
            rounded = tuple(float(f"{rate:.6g}") for rate in mean)
            script += [rounded] * count
        label = f"{entry.label} (open loop)"
        replay = entry.cell.task.job(
            entry.job.method, "open_loop", entry.job.seeds, script=tuple(script)
        )
        return [Entry(label, entry.cell, replay, by_instance=True)]


def make_cells(
    instances: Sequence[Instance], scale: str, settings: dict[str, Any]
) -> tuple[Cell, ...]:
    """Return `instances` by cell.

    Args:
        instances: What is judged.
        scale: The preset that has what an instance does not say.
        settings: Further keywords of `gym.make`; they win over the preset's.

    Raises:
        TypeError: A setting is unknown.
        ValueError: An instance does not fit the preset.
    """
    groups: dict[tuple[Any, ...], list[Instance]] = {}
    for instance in instances:
        key = (
            instance.corpus,
            instance.n_layer,
            instance.n_embd,
            instance.batch_size,
            instance.max_iters,
        )
        groups.setdefault(key, []).append(instance)
    return tuple(
        Cell(_task(group[0], scale, settings), tuple(group))
        for group in groups.values()
    )


def _task(instance: Instance, scale: str, settings: dict[str, Any]) -> Task:
    """Return the task of a cell: decisions at the same shares of any horizon."""
    of_training, of_mdp = field_names(TrainingConfig), field_names(MDPConfig)
    check_keywords("--settings", settings, of_training + of_mdp)
    own = {k: v for k, v in settings.items() if k in of_training}
    base = preset(scale, instance.corpus, **own)
    share = instance.max_iters / base.max_iters
    dense = settings.get("dense_interval", MDPConfig().dense_interval)
    shape = instance.training_config(base)
    return Task(
        instance.corpus,
        {
            "scale": scale,
            **settings,
            "n_layer": shape.n_layer,
            "n_head": shape.n_head,
            "n_embd": shape.n_embd,
            "batch_size": shape.batch_size,
            "max_iters": instance.max_iters,
            "eval_interval": max(1, round(base.eval_interval * share)),
            "dense_interval": max(1, round(dense * share)),
            "learning_rate": GRID,
        },
    )


def core_seconds(suite: Suite, done: Records) -> float:
    """Return what the jobs took, each on one thread."""
    return sum(float(done[job.file_name]["seconds"]) for job in suite.plan(done))


def trainings(suite: Suite, done: Records, phase: str) -> int:
    """Return the trainings spent on jobs of `phase`."""
    jobs = [job for job in suite.plan(done) if job.phase == phase]
    return sum(len(job.seeds) * find_method(job.method).cost for job in jobs)
