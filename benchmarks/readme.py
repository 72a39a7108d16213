"""Write README's tables and verdicts from the committed result files.

    python benchmarks/readme.py            # rewrite
    python benchmarks/readme.py --check    # fail where README differs from the files

Nothing between the markers in README.md is typed by hand.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import readme_tables
from benchmarks.speed.gpu_tables import gpu_table
from benchmarks.summary import Row, load_rows
from benchmarks.table_text import estimate_text, markdown, spread_text
from benchmarks.verdict import verdict
from lr_gym.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@dataclass
class Args:
    """Bring README in line with benchmarks/results."""

    check: bool = False
    """Change nothing; exit with an error where README is out of date."""


def comparison(name: str) -> list[Row]:
    """Return the rows of a committed comparison."""
    return load_rows(RESULTS / name / "summary.json")


def verdict_text(name: str) -> str:
    """Return what a committed comparison settles, wrapped."""
    return textwrap.fill(verdict(comparison(name)), 88, break_on_hyphens=False)


def comparison_table(name: str) -> str:
    """Return a comparison as a Markdown table, the best method first."""
    rows = [row for row in comparison(name) if row.kind != "control"]
    tasks = list(rows[0].test_loss)
    reference = next(row.label for row in rows if row.call == "reference")
    heads = [
        "method",
        *(f"test loss, {task}" for task in tasks),
        f"versus {reference} (95 % interval)",
        "call",
        "trainings spent",
        "diverged",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        losses = [f"{row.test_loss[task]:.4f}" for task in tasks]
        budget = f"{row.budget:.0f}" + (f" + {row.run_cost} a run" * (row.run_cost > 1))
        gap = "–" if row.difference is None else estimate_text(row.difference)  # noqa: RUF001
        cells = [
            f"`{row.label}`",
            *losses,
            gap,
            row.call,
            budget,
            f"{row.diverged:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def lr_table() -> str:
    """Return how much the constant learning rate matters, per corpus and scale."""
    results = json.loads((RESULTS / "lr_matters.json").read_text(encoding="utf-8"))
    lines = [
        "| corpus | scale | best constant LR | final val loss there "
        "| ten times lower | ten times higher | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results.values():
        config = result["config"]
        lines.append(
            f"| {config['corpus']} | {config['scale']} | "
            f"{result['best_learning_rate']:g} | {result['best_mean_val_loss']:.3f} | "
            f"+{result['margin_10x_lower']:.3f} | +{result['margin_10x_higher']:.3f} | "
            f"{len(result['final_val_loss'])} |"
        )
    return "\n".join(lines)


def throughput(scale: str, machine: str = "cpu") -> dict[str, Any]:
    """Return a scale's committed throughput on a CPU, or on a `wide` one."""
    path = RESULTS / "throughput" / f"{machine}-{scale}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def training_table() -> str:
    """Return training speed against the plain loop's, by scale, on two machines."""
    columns = [
        (f"`{scale}`, {peak_text(machine)}", throughput(scale, machine)["training"])
        for scale in ("mini", "tiny")
        for machine in ("cpu", "wide")
    ]
    names = [
        name
        for name, row in columns[0][1].items()
        if row.get("reference") == "plain" and all(name in rows for _, rows in columns)
    ]
    speeds = {
        head: f"{rows['plain']['tokens_per_second']['median']:,.0f} characters/s"
        for head, rows in columns
    }
    table: list[dict[str, str]] = [{"what trains": "plain"} | speeds]
    for name in names[1:]:
        ratios = {head: spread_text(rows[name]["ratio"]) for head, rows in columns}
        table.append({"what trains": name} | ratios)
    return markdown(table)


def peak_text(machine: str) -> str:
    """Return what tells the machines apart: the speed of bfloat16 products."""
    peak = throughput("mini", machine)["matmul_peak_flops_per_second"]["bfloat16"]
    return f"{peak / 1e9:.0f} GFLOP/s"


def cost_table() -> str:
    """Return what an episode costs, mini beside tiny."""
    columns = [throughput(scale) for scale in ("mini", "tiny")]
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "whole episode through `gym.make`, s": lambda c: (
            f"{c['episode']['gym']['seconds']:.1f}"
        ),
        "the same in the plain loop with its 2 x 200 random batches per decision, s": (
            lambda c: f"{c['episode']['plain_seconds']['median']:.0f}"
        ),
        "the environment's own share of an episode": lambda c: (
            f"{c['episode']['gym']['overhead_share']:.2%}"
        ),
        "one exact pass over the validation split, s": lambda c: (
            f"{c['evaluation']['seconds']['exact_val']['median']:.2f}"
        ),
        "the estimate by random batches: s": lambda c: (
            f"{c['evaluation']['seconds']['random_batches_train_and_val']['median']:.2f}"
        ),
        "its standard deviation, nats": lambda c: (
            f"{c['evaluation']['random_val_sd']:.4f}"
        ),
        "memory of a further member, MB": lambda c: (
            f"{c['memory']['bytes_per_extra_member'] / 1e6:.1f}"
        ),
        "training state of a member, MB": lambda c: (
            f"{c['memory']['plain_state_bytes'] / 1e6:.1f}"
        ),
        "whole steps of 8 members over 2 workers, versus SubprocVecEnv": lambda c: (
            spread_text(c["training"]["steps 8, make_vec, sharded"]["ratio"])
        ),
    }
    lines = ["| | `mini` | `tiny` |", "|---|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {name} | {value(columns[0])} | {value(columns[1])} |")
    return "\n".join(lines)


def precision_table() -> str:
    """Return the paired differences between fast paths and float32."""
    results = json.loads((RESULTS / "precision.json").read_text(encoding="utf-8"))
    lines = [
        "| corpus | scale | precision | compile | pairs | mean difference, nats "
        "(95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for result in results.values():
        config, found = result["config"], result["difference"]
        pairs = len(result["final_val_loss"]["fast, evaluated as fast"])
        lines.append(
            f"| {config['corpus']} | {config['scale']} | {config['precision']} | "
            f"{config['compile']} | {pairs} | {found['mean']:+.4f} "
            f"({found['low']:+.4f} to {found['high']:+.4f}) |"
        )
    return "\n".join(lines)


def rendered(readme: str) -> str:
    """Return README with everything between its markers made anew."""
    blocks = {
        "verdict": verdict_text("tiny"),
        "tiny": comparison_table("tiny"),
        "final-verdict": verdict_text("tiny/final"),
        "final": comparison_table("tiny/final"),
        "quick": comparison_table("quick"),
        "paper-tables": readme_tables.paper(),
        "scale-out": readme_tables.scale_out(),
        "wrong-rates": readme_tables.wrong_rates(),
        "wrong-rates-markov": readme_tables.wrong_rates("wrong_rates_markov"),
        "wrong-rates-text8": readme_tables.wrong_rates("wrong_rates_text8"),
        "widths": readme_tables.widths(),
        "tuning-free": readme_tables.tuning_free(),
        "tuning-free-later": readme_tables.tuning_free(readme_tables.LATER),
        "tuning-free-cells": readme_tables.tuning_free_cells(readme_tables.LATER),
        "rule-choice": readme_tables.rule_choice(),
        "tuning-free-third": readme_tables.tuning_free(readme_tables.THIRD),
        "tuning-free-third-cells": readme_tables.tuning_free_cells(readme_tables.THIRD),
        "tuning-cost": textwrap.fill(readme_tables.tuning_cost(), 88),
        "foreign-loops": readme_tables.foreign_loops(),
        "controller-cost": readme_tables.controller_cost(),
        "architectures": readme_tables.architectures(),
        "wrong-rates-lstm": readme_tables.wrong_rates("wrong_rates_lstm"),
        "wrong-rates-conv": readme_tables.wrong_rates("wrong_rates_conv"),
        "proposals": readme_tables.proposals(),
        "laws": readme_tables.laws(),
        "damage": readme_tables.damage(),
        "optimum": readme_tables.optimum(),
        "controller-features": readme_tables.controller_features(),
        "fine-tuning": readme_tables.fine_tuning(),
        "fine-tuned": readme_tables.fine_tuned(),
        "surrogate-speed": readme_tables.surrogate_speed(),
        "lr": lr_table(),
        "training": training_table(),
        "costs": cost_table(),
        "gpu": gpu_table(),
        "precision": precision_table(),
    }
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if readme.count(begin) != 1 or readme.count(end) != 1:
            raise ValueError(f"README.md must hold {begin} and {end} once each")
        head, rest = readme.split(begin)
        readme = f"{head}{begin}\n{block}\n{end}{rest.split(end)[1]}"
    return readme


def main(args: Args) -> None:
    """Rewrite or check README."""
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = rendered(before)
    if args.check:
        if after != before:
            sys.exit("README.md is out of date: run python benchmarks/readme.py")
        return
    write_text(path, after)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
