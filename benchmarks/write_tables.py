"""Write the tables of README.md and docs/*.md from the committed result files.

    python -m benchmarks.write_tables            # rewrite
    python -m benchmarks.write_tables --check    # fail if a file is out of date

A table is between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. `TABLES` maps each
name to the function that writes the table. Do not edit between the markers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from agents.command_line import parse_command_line
from benchmarks.docs_tables import (
    clients,
    comparison,
    controller,
    evidence,
    gpu,
    speed,
    surrogate,
)
from benchmarks.paths import ROOT
from lr_gym.files import write_text

MARK = re.compile(r"<!-- (?P<side>begin|end) (?P<name>[\w-]+) -->")
BLOCK = re.compile(
    r"<!-- begin (?P<name>[\w-]+) -->\n.*?<!-- end (?P=name) -->", flags=re.DOTALL
)


@dataclass
class Args:
    """Update the tables of README.md and docs/ from benchmarks/results."""

    check: bool = False
    """Change nothing; fail if a file is out of date."""


TABLES: Mapping[str, Callable[[], str]] = {
    "headline": comparison.headline,
    "tiny": partial(comparison.comparison_table, "tiny"),
    "final": partial(comparison.comparison_table, "tiny/final"),
    "quick": partial(comparison.comparison_table, "quick"),
    "lr": comparison.learning_rates,
    "paper-tables": comparison.paper,
    "controller": controller.controller,
    "wrong-rates": controller.wrong_rates,
    "wrong-rates-markov": partial(controller.wrong_rates, "wrong_rates_markov"),
    "wrong-rates-text8": partial(controller.wrong_rates, "wrong_rates_text8"),
    "wrong-rates-lstm": partial(controller.wrong_rates, "wrong_rates_lstm"),
    "wrong-rates-conv": partial(controller.wrong_rates, "wrong_rates_conv"),
    "widths": controller.widths,
    "tuning-free": controller.tuning_free,
    "tuning-free-v2": partial(controller.tuning_free, "tuning_free_v2"),
    "tuning-free-cells": partial(controller.tuning_free_cells, "tuning_free_v2"),
    "tuning-free-v3": partial(controller.tuning_free, "tuning_free_v3"),
    "tuning-free-v3-cells": partial(controller.tuning_free_cells, "tuning_free_v3"),
    "tuning-cost": controller.tuning_cost,
    "rule-choice": controller.rule_choice,
    "foreign-loops": controller.foreign_loops,
    "users-headline": controller.users_headline,
    "users-tasks": partial(controller.users_tasks, "choosing"),
    "users-judged": partial(controller.users_tasks, "judged"),
    "field-cases": controller.field_cases,
    "forgetting": controller.forgetting,
    "controller-cost": controller.controller_cost,
    "laws": surrogate.laws,
    "public-curves": surrogate.published_curves,
    "intervals": surrogate.held_out_intervals,
    "proposals": surrogate.proposals,
    "damage": surrogate.damage,
    "optimum": surrogate.optimum,
    "controller-features": surrogate.features,
    "fine-tuning": surrogate.fine_tuning,
    "fine-tuned": surrogate.fine_tuned,
    "surrogate-speed": surrogate.speed,
    "training": speed.training,
    "costs": speed.costs,
    "precision": speed.precision,
    "architectures": speed.architectures,
    "scale-out": speed.scale_out,
    "gpu": gpu.gpu_table,
    "results": evidence.results,
    "clients": clients.compatibility,
    "client-wrappers": clients.wrappers,
    "stock-learners": clients.stock_learners,
}


@cache
def table(name: str) -> str:
    """Return the table `name`; several files may show it."""
    return TABLES[name]()


def pages() -> list[Path]:
    """Return the files that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def table_names(text: str) -> list[str]:
    """Return the names of the tables that `text` shows, in order.

    Raises:
        ValueError: A marker names no table, or begin and end do not match.
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
    """Return `text` with the current content of every table.

    Raises:
        ValueError: A marker names no table, or begin and end do not match.
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
    """Raise ValueError if no file shows one of the tables."""
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
            sys.exit(
                f"{path.name} is out of date: run python -m benchmarks.write_tables"
            )
        write_text(path, updated)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
