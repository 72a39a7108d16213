"""Ablations of the agents: one change at a time.

    python -m benchmarks.comparison.ablations  # on the embedded corpus, tiny
    python -m benchmarks.comparison.ablations --agents q_paper --env shakespeare --scale
        mini

The paper's agent gets the paper's three ablations: initial rate, reward signal, epsilon
decay. The improved Q-table and PPO get others: discount, factors, features and
decisions per episode. Every variant has the same budget of trainings, the same number
of learners and the same test seeds, and is compared with its agent's default seed by
seed. Finished jobs are kept, as in `compare_agents.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.command_line import parse_command_line
from benchmarks.comparison.ablation_report import DEFAULT, summarize, write_report
from benchmarks.comparison.fixed_plan import (
    check_counts,
    make_tasks,
    one_line_job_errors,
    run_plan,
)
from benchmarks.comparison.jobs import Job, env_name, task_learning_rate
from benchmarks.comparison.methods import find_method
from benchmarks.comparison.protocol import Task
from lr_gym.config import TrainingConfig, preset
from lr_gym.mdp.config import PAPER_FACTORS
from lr_gym.validation import field_names

FIVE_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Variant:
    """An agent with one change.

    Attributes:
        agent: The agent; the variant is compared with its default.
        what: What is changed.
        value: The new value.
        method: A name that `find_method` knows.
        settings: Keywords of `gym.make` that differ from the default's.
        rate: Multiple of the task's initial learning rate.
        interval: Multiple of the task's interval between decisions.
    """

    agent: str
    what: str = DEFAULT
    value: str = ""
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    interval: float = 1.0

    def job(self, task: Task, phase: str, seeds: Sequence[int], **more: Any) -> Job:
        """Return a job of the variant on `task`."""
        settings = {**task.settings, **self.settings}
        if self.rate != 1.0:
            base = task_learning_rate(task.job("", "", ()))
            settings["learning_rate"] = self.rate * base
        if self.interval != 1.0:
            settings["eval_interval"] = max(1, round(self.interval * interval(task)))
        method = self.method or self.agent
        return Job(method, task.env, phase, tuple(seeds), settings=settings, **more)


def interval(task: Task) -> int:
    """Return the task's iterations between decisions."""
    names = set(field_names(TrainingConfig)) - {"scale"}
    training = {k: v for k, v in task.settings.items() if k in names}
    return preset(task.settings["scale"], task.env, **training).eval_interval


def _learner(agent: str, additional: Sequence[Variant]) -> list[Variant]:
    """Return the ablations of a learning agent: the shared and `additional` ones."""
    small, large = str(PAPER_FACTORS), str(FIVE_FACTORS)
    return [
        Variant(agent),
        Variant(agent, "discount", "0.9, not 1", f"{agent}_discounted"),
        Variant(agent, "factors", small, settings={"lr_factors": PAPER_FACTORS}),
        Variant(agent, "factors", large, settings={"lr_factors": FIVE_FACTORS}),
        *additional,
        Variant(agent, "decisions", "twice as many", interval=0.5),
        Variant(agent, "decisions", "half as many", interval=2.0),
    ]


VARIANTS: dict[str, list[Variant]] = {
    "q_paper": [
        Variant("q_paper"),
        Variant("q_paper", "initial LR", "half", rate=0.5),
        Variant("q_paper", "initial LR", "double", rate=2.0),
        *(
            Variant("q_paper", "reward", reward, settings={"reward": reward})
            for reward in ("negative_loss", "best_improvement")
        ),
        Variant("q_paper", "epsilon", "decays", "q_paper_epsilon_decay"),
        Variant("q_paper", "ties", "first, as coded", "q_paper_first_of_ties"),
    ],
    "q_improved": _learner(
        "q_improved",
        [
            Variant("q_improved", "states", "loss, LR", "q_improved_loss_states"),
            Variant(
                "q_improved", "states", "loss, LR, decision", "q_improved_full_states"
            ),
        ],
    ),
    "ppo": _learner(
        "ppo",
        [
            Variant("ppo", "features", ", ".join(names), settings={"features": names})
            for names in (
                ("val_loss", "learning_rate"),  # the paper's state
                ("log_excess_loss", "log_learning_rate"),
            )
        ],
    ),
}


@dataclass
class Args:
    """Run the ablations and compare each with its default."""

    env: tuple[str, ...] = ("markov",)
    """Corpora: markov, shakespeare, enwik8, text8, or text files' paths."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """Size of the model and length of a run; auto is paper on CUDA, else mini."""
    agents: tuple[str, ...] = tuple(VARIANTS)
    """Agents to ablate: q_paper, q_improved, ppo."""
    budget: int = 24
    """Trainings that a learning agent may spend; the default is compare_agents'."""
    learners: int = 3
    """Independent trainings of every learning agent."""
    seeds: int = 12
    """Test runs per variant and corpus, divided among the learners; with fewer than
    about 9 every call is open."""
    settings: str = "{}"
    """Further keywords of gym.make for every run, as JSON."""
    workers: int | None = None
    """Processes; default: one per core, or a single one with a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to run on; local starts one here."""
    gpus: float = 0.0
    """With --ray: share of a GPU that a job needs."""
    fresh: bool = False
    """Run jobs again that were made by other code; old files move to the folder old."""
    out: Path | None = None
    """Output folder; default results/ablations/ENV-SCALE."""


def variant_jobs(variant: Variant, task: Task, args: Args) -> list[Job]:
    """Return the jobs of one variant on one corpus.

    Every learner is a job with its share of the seeds, as in `protocol.plan`; an agent
    that does not learn beforehand has one job with all seeds.
    """
    seeds = tuple(range(args.seeds))
    if not find_method(variant.method or variant.agent).learns:
        return [variant.job(task, "test", seeds)]
    count = min(args.learners, args.seeds)
    return [
        variant.job(
            task,
            "learn",
            seeds[replicate::count],
            replicate=replicate,
            budget=args.budget,
        )
        for replicate in range(count)
    ]


def check(args: Args) -> None:
    """Raise ValueError if an argument is out of range."""
    check_counts(args, "budget", "learners", "seeds", "workers")
    unknown = [name for name in args.agents if name not in VARIANTS]
    if unknown or not args.agents:
        raise ValueError(
            f"--agents must be some of {', '.join(VARIANTS)}, got {args.agents}"
        )


def main(args: Args) -> Path:
    """Run missing jobs; write and print the table; return its folder."""
    with one_line_job_errors():
        check(args)
        tasks = make_tasks(args, args.env, args.agents)
        names = "-".join(env_name(env) for env in args.env)
        scale = tasks[0].settings["scale"]
        folder = args.out or Path(f"results/ablations/{names}-{scale}")
        variants = [variant for agent in args.agents for variant in VARIANTS[agent]]
        jobs = [
            [job for task in tasks for job in variant_jobs(variant, task, args)]
            for variant in variants
        ]
        plan = [job for variant_plan in jobs for job in variant_plan]
        done = run_plan(plan, folder / "jobs", args)
    rows = summarize(
        (variant, [done[job.file_name] for job in variant_plan])
        for variant, variant_plan in zip(variants, jobs, strict=True)
    )
    print(write_report(folder, rows, args))
    print(f"report: {folder / 'ablations.md'}")
    return folder


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
