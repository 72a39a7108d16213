"""Write the tables of README.md and docs/*.md from the committed result files.

    python -m benchmarks.readme            # rewrite
    python -m benchmarks.readme --check    # fail if a file is out of date

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; `TABLES` maps
each name to the function that writes it. Nothing between the markers is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks import readme_tables
from benchmarks.comparison.summary import Row, load_rows
from benchmarks.paths import RESULTS, ROOT
from benchmarks.speed.gpu_tables import gpu_table
from benchmarks.table_text import estimate_text, markdown, spread_text
from lr_gym.files import write_text

MARK = re.compile(r"<!-- (?P<side>begin|end) (?P<name>[\w-]+) -->")
BLOCK = re.compile(
    r"<!-- begin (?P<name>[\w-]+) -->\n.*?<!-- end (?P=name) -->", flags=re.DOTALL
)
NO_DIFFERENCE = "–"  # noqa: RUF001 - of the reference to itself


@dataclass
class Args:
    """Update the tables of README.md and docs/ from benchmarks/results."""

    check: bool = False
    """Change nothing; exit with an error if a file is out of date."""


def comparison(name: str) -> list[Row]:
    """Return the rows of a committed comparison."""
    return load_rows(RESULTS / "comparison" / name / "summary.json")


def comparison_table(name: str) -> str:
    """Return a comparison as a Markdown table, the best method first."""
    rows = [row for row in comparison(name) if row.kind != "control"]
    tasks = list(rows[0].test_loss)
    reference = next(row.label for row in rows if row.call == "reference")
    return markdown(
        [
            {"method": f"`{row.label}`"}
            | {f"test loss, {task}": f"{row.test_loss[task]:.4f}" for task in tasks}
            | {
                f"versus {reference} (95 % interval)": difference_text(row),
                "verdict": row.call,
                "trainings spent": budget_text(row),
                "diverged": f"{row.diverged:.0%}",
            }
            for row in rows
        ]
    )


def difference_text(row: Row) -> str:
    """Return a method's difference to the reference, with its interval."""
    return NO_DIFFERENCE if row.difference is None else estimate_text(row.difference)


def budget_text(row: Row) -> str:
    """Return the trainings a method has spent before its test runs, and per run."""
    per_run = f" + {row.run_cost} a run" if row.run_cost > 1 else ""
    return f"{row.budget:.0f}{per_run}"


def headline_table() -> str:
    """Return eight rows of the comparison at `tiny`, the best agent among them."""
    rows = {row.label: row for row in comparison("tiny")}
    best_agent = next(row.label for row in rows.values() if row.kind == "agent")
    shown = {
        "schedule_free": "schedule-free AdamW",
        "wsd": "warm-up, stable, 1-sqrt decay",
        "random_search": "random search over schedules",
        "cosine": "cosine decay to a tenth",
        "linear": "linear decay to zero (reference)",
        best_agent: "best of the learned agents",
        "q_paper": "the paper's Q-learning, real control",
        "ppo": "PPO",
    }
    return markdown(
        [
            {
                "method": f"`{label}`",
                "what it is": description,
                "Shakespeare": f"{rows[label].test_loss['shakespeare tiny']:.4f}",
                "text8": f"{rows[label].test_loss['text8 tiny']:.4f}",
                "versus tuned linear decay (95 % interval)": difference_text(
                    rows[label]
                ),
                "verdict": rows[label].call,
            }
            for label, description in shown.items()
        ]
    )


def lr_table() -> str:
    """Return how much the constant learning rate matters, per corpus and scale."""
    results = json.loads(
        (RESULTS / "comparison" / "lr_matters.json").read_text(encoding="utf-8")
    )
    lines = [
        "| corpus | scale | best constant LR | its final val loss "
        "| LR ten times lower | LR ten times higher | seeds |",
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
    path = RESULTS / "speed" / "throughput" / f"{machine}-{scale}.json"
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
        if row.get("reference") == "plain"
        and "sharded" not in name  # measured before the package dropped it
        and all(name in rows for _, rows in columns)
    ]
    speeds = {
        head: f"{rows['plain']['tokens_per_second']['median']:,.0f} characters/s"
        for head, rows in columns
    }
    table: list[dict[str, str]] = [{"training loop": "plain"} | speeds]
    for name in names[1:]:
        ratios = {head: spread_text(rows[name]["ratio"]) for head, rows in columns}
        table.append({"training loop": name} | ratios)
    return markdown(table)


def peak_text(machine: str) -> str:
    """Return a machine's speed at bfloat16 matrix products."""
    peak = throughput("mini", machine)["matmul_peak_flops_per_second"]["bfloat16"]
    return f"{peak / 1e9:.0f} GFLOP/s"


def cost_table() -> str:
    """Return the costs of an episode at `mini` and `tiny`."""
    columns = [throughput(scale) for scale in ("mini", "tiny")]
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "whole episode through `gym.make`, s": lambda c: (
            f"{c['episode']['gym']['seconds']:.1f}"
        ),
        "the same in the plain loop, 2 x 200 random batches per decision, s": (
            lambda c: f"{c['episode']['plain_seconds']['median']:.0f}"
        ),
        "share of the episode spent in the environment's own code": lambda c: (
            f"{c['episode']['gym']['overhead_share']:.2%}"
        ),
        "one exact pass over the validation split, s": lambda c: (
            f"{c['evaluation']['seconds']['exact_val']['median']:.2f}"
        ),
        "the estimate by random batches, s": lambda c: (
            f"{c['evaluation']['seconds']['random_batches_train_and_val']['median']:.2f}"
        ),
        "standard deviation of that estimate, nats": lambda c: (
            f"{c['evaluation']['random_val_sd']:.4f}"
        ),
        "memory per additional member, MB": lambda c: (
            f"{c['memory']['bytes_per_extra_member'] / 1e6:.1f}"
        ),
        "training state per member, MB": lambda c: (
            f"{c['memory']['plain_state_bytes'] / 1e6:.1f}"
        ),
        "speed of 8 members in one process versus SubprocVecEnv": lambda c: spread_text(
            c["training"]["steps 8, make_vec"]["ratio"]
        ),
    }
    lines = ["| | `mini` | `tiny` |", "|---|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {name} | {value(columns[0])} | {value(columns[1])} |")
    return "\n".join(lines)


def precision_table() -> str:
    """Return the paired differences between fast paths and float32."""
    results = json.loads(
        (RESULTS / "speed" / "precision.json").read_text(encoding="utf-8")
    )
    lines = [
        "| corpus | scale | precision | compile | pairs | mean difference, nats "
        "(95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for result in results.values():
        config, difference = result["config"], result["difference"]
        pairs = len(result["final_val_loss"]["fast, evaluated as fast"])
        lines.append(
            f"| {config['corpus']} | {config['scale']} | {config['precision']} | "
            f"{config['compile']} | {pairs} | {difference['mean']:+.4f} "
            f"({difference['low']:+.4f} to {difference['high']:+.4f}) |"
        )
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[], str]] = {
    "headline": headline_table,
    "tiny": partial(comparison_table, "tiny"),
    "final": partial(comparison_table, "tiny/final"),
    "quick": partial(comparison_table, "quick"),
    "paper-tables": readme_tables.paper,
    "scale-out": readme_tables.scale_out,
    "controller": readme_tables.controller,
    "wrong-rates": readme_tables.wrong_rates,
    "wrong-rates-markov": partial(readme_tables.wrong_rates, "wrong_rates_markov"),
    "wrong-rates-text8": partial(readme_tables.wrong_rates, "wrong_rates_text8"),
    "wrong-rates-lstm": partial(readme_tables.wrong_rates, "wrong_rates_lstm"),
    "wrong-rates-conv": partial(readme_tables.wrong_rates, "wrong_rates_conv"),
    "widths": readme_tables.widths,
    "tuning-free": readme_tables.tuning_free,
    "tuning-free-v2": partial(readme_tables.tuning_free, readme_tables.V2),
    "tuning-free-cells": partial(readme_tables.tuning_free_cells, readme_tables.V2),
    "tuning-free-v3": partial(readme_tables.tuning_free, readme_tables.V3),
    "tuning-free-v3-cells": partial(readme_tables.tuning_free_cells, readme_tables.V3),
    "tuning-cost": readme_tables.tuning_cost,
    "rule-choice": readme_tables.rule_choice,
    "foreign-loops": readme_tables.foreign_loops,
    "controller-cost": readme_tables.controller_cost,
    "architectures": readme_tables.architectures,
    "laws": readme_tables.laws,
    "proposals": readme_tables.proposals,
    "damage": readme_tables.damage,
    "optimum": readme_tables.optimum,
    "controller-features": readme_tables.controller_features,
    "fine-tuning": readme_tables.fine_tuning,
    "fine-tuned": readme_tables.fine_tuned,
    "surrogate-speed": readme_tables.surrogate_speed,
    "lr": lr_table,
    "training": training_table,
    "costs": cost_table,
    "precision": precision_table,
    "gpu": gpu_table,
}


@cache
def table(name: str) -> str:
    """Return the table `name`, which several files may show."""
    return TABLES[name]()


def pages() -> list[Path]:
    """Return the files that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def table_names(text: str) -> list[str]:
    """Return the names of the tables that `text` shows, in order.

    Raises:
        ValueError: A marker names no table, or has no partner.
    """
    marks = [(mark["side"], mark["name"]) for mark in MARK.finditer(text)]
    names = [name for _, name in marks[::2]]
    for name in names:
        if name not in TABLES:
            raise ValueError(
                f"marker {name!r} names no table; known are {', '.join(TABLES)}"
            )
    if marks != [(side, name) for name in names for side in ("begin", "end")]:
        raise ValueError(f"begin and end markers do not pair up: {marks}")
    return names


def rendered(text: str) -> str:
    """Return `text` with every marked table written again.

    Raises:
        ValueError: A marker names no table, or has no partner.
    """
    table_names(text)
    return BLOCK.sub(
        lambda block: (
            f"<!-- begin {block['name']} -->\n{table(block['name'])}\n"
            f"<!-- end {block['name']} -->"
        ),
        text,
    )


def check_all_used(texts: Mapping[Path, str]) -> None:
    """Raise ValueError if there is a table that no file shows."""
    used = {name for text in texts.values() for name in table_names(text)}
    unused = [name for name in TABLES if name not in used]
    if unused:
        raise ValueError(f"no file shows the tables {', '.join(unused)}")


def main(args: Args) -> None:
    """Rewrite or check the files."""
    texts = {path: path.read_text(encoding="utf-8") for path in pages()}
    check_all_used(texts)
    for path, text in texts.items():
        updated = rendered(text)
        if updated == text:
            continue
        if args.check:
            sys.exit(f"{path.name} is out of date: run python -m benchmarks.readme")
        write_text(path, updated)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
