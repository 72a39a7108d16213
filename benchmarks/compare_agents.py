"""Compare agents on one environment: runs, a table, a report.

    python benchmarks/compare_agents.py --env markov
    python benchmarks/compare_agents.py --env shakespeare --seeds 5
    python benchmarks/compare_agents.py --agents constant wsd my_agents.py:MyAgent

Every agent is judged on the same seeds. Each finished run is one JSON file in the
output folder, so that an interrupted comparison, started again, goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from agents.agent import ENVS, make_env
from benchmarks.report import summarize, verdict, write_report, write_summary
from benchmarks.runs import Job, load_run, make_agent, run_job, save_run
from lr_gym.devices import resolve_scale

DEFAULT_AGENTS = (
    "constant",
    "cosine",
    "linear",
    "wsd",
    "plateau",
    "greedy",
    "random",
    "q_paper",
)
QUICK_AGENTS = ("constant", "wsd", "q_paper")
QUICK_SETTINGS = {"max_iters": 60, "eval_interval": 6, "eval_tokens": 2048}


@dataclass
class Args:
    """Run agents x seeds, and report."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: Literal["auto", "paper", "mini", "tiny"] = "tiny"
    """Size of the model and length of a run; auto is paper on CUDA, else mini."""
    agents: tuple[str, ...] = DEFAULT_AGENTS
    """Schedules, random, plateau, greedy, q_paper, q_improved, dqn, ppo, a2c, qrdqn,
    trpo, recurrent_ppo, or your own as module:Class or file.py:Class."""
    seeds: int = 3
    """Runs per agent: the seeds 0, 1, ..."""
    training_episodes: int = 20
    """Runs that q_improved and the deep agents learn from before they are judged."""
    settings: str = "{}"
    """Further keywords of gym.make for every agent, as JSON."""
    samples: int = 1
    """Texts of 500 characters generated per run, to time inference (the paper: 10)."""
    out: Path | None = None
    """Output folder; default results/compare/ENV-SCALE."""
    quick: bool = False
    """A smoke run: three agents, one seed, a tenth of the iterations."""


def plan(args: Args) -> list[Job]:
    """Return the jobs, all agents on the first seed first.

    Raises:
        ValueError: An argument is wrong; the message names it.
    """
    try:
        settings = json.loads(args.settings)
    except ValueError as error:
        raise ValueError(f"--settings must be JSON, got {args.settings!r}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"--settings must be a JSON object, got {args.settings!r}")
    for name in ("seeds", "samples"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.training_episodes < 0:
        raise ValueError(
            f"--training-episodes must be >= 0, got {args.training_episodes}"
        )
    if not args.agents or len(set(args.agents)) < len(args.agents):
        raise ValueError(f"--agents must name each agent once, got {args.agents}")
    agents, seeds = args.agents, args.seeds
    scale = resolve_scale(args.scale, settings.get("device", "auto"))
    settings = {"scale": scale, **settings}
    if args.quick:
        agents = QUICK_AGENTS if agents == DEFAULT_AGENTS else agents
        seeds, settings = 1, settings | QUICK_SETTINGS
    for name in agents:
        agent = make_agent(name, 0)  # wrong names and settings fail before any work
        make_env(args.env, **{**agent.settings, **settings}).close()
    return [
        Job(name, seed, args.env, settings, args.training_episodes, args.samples)
        for seed in range(seeds)
        for name in agents
    ]


def run(
    jobs: list[Job], records: list[dict[str, Any] | None], folder: Path
) -> list[dict[str, Any]]:
    """Return the record of every job, running and keeping those that have none yet."""
    finished: list[dict[str, Any]] = []
    known = sum(record is not None for record in records)
    with tqdm(total=len(jobs), initial=known, unit="run") as bar:
        for job, kept in zip(jobs, records, strict=True):
            record = kept
            if record is None:
                label = f"{job.agent}, seed {job.seed}"

                def show(info: dict[str, Any], label: str = label) -> None:
                    bar.set_description(f"{label} {info['progress']:4.0%}")

                record = run_job(job, show)
                save_run(folder / job.file_name, record)
                bar.update()
            finished.append(record)
    return finished


def main(args: Args) -> Path:
    """Run what is missing, write summary.csv and report.html; return the report."""
    name = args.env if args.env in ENVS else Path(args.env).stem
    folder = args.out or Path(f"results/compare/{name}-{args.scale}")
    try:
        jobs = plan(args)
        known = [load_run(folder / "runs" / job.file_name, job) for job in jobs]
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except (ValueError, TypeError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    try:
        records = run(jobs, known, folder / "runs")
    except KeyboardInterrupt:
        raise SystemExit(
            f"interrupted: finished runs are kept in {folder}/runs, and the same "
            "command goes on from there"
        ) from None
    rows = summarize(records)
    write_summary(folder / "summary.csv", rows)
    command = shlex.join(["python", "benchmarks/compare_agents.py", *sys.argv[1:]])
    report = write_report(folder / "report.html", records, rows, command)
    seeds = rows[0]["seeds"]
    print(f"\nfinal validation loss, mean of {seeds} seed{'' if seeds == 1 else 's'}")
    for row in rows:
        print(f"  {row['agent']:16} {row['final_val_loss']:.4f}")
    print(f"\n{verdict(rows)}\nreport: {report}")
    return report


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
