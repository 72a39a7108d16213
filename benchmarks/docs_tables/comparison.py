"""Tables of the comparison, the paper's tables and the learning-rate sweeps."""

from __future__ import annotations

import csv

from benchmarks.comparison.summary import Row, load_rows
from benchmarks.paths import RESULTS
from benchmarks.results_file import committed
from benchmarks.table_text import estimate_text, markdown

NO_DIFFERENCE = "–"  # noqa: RUF001 - of the reference to itself
HEADLINE_METHODS = {
    "schedule_free": "schedule-free AdamW",
    "wsd": "warm-up, stable, 1-sqrt decay",
    "random_search": "random search over schedules",
    "cosine": "cosine decay to a tenth",
    "linear": "linear decay to zero (reference)",
}


def comparison(name: str) -> list[Row]:
    """Return the rows of a committed comparison."""
    return load_rows(RESULTS / "comparison" / name / "summary.json")


def comparison_table(name: str) -> str:
    """Return a comparison, the best method first."""
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


def headline() -> str:
    """Return eight methods of the comparison at `tiny`, with the best agent."""
    rows = {row.label: row for row in comparison("tiny")}
    best_agent = next(row.label for row in rows.values() if row.kind == "agent")
    methods = HEADLINE_METHODS | {
        best_agent: "best agent, by the difference",
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
            for label, description in methods.items()
        ]
    )


def difference_text(row: Row) -> str:
    """Return the difference of a method to the reference, with its interval."""
    return NO_DIFFERENCE if row.difference is None else estimate_text(row.difference)


def budget_text(row: Row) -> str:
    """Return the trainings that a method spends before its test runs, and per run."""
    per_run = f" + {row.run_cost} a run" if row.run_cost > 1 else ""
    return f"{row.budget:.0f}{per_run}"


def learning_rates() -> str:
    """Return how much the constant learning rate matters, by corpus and scale."""
    rows = []
    for sweep in committed("comparison/lr_matters.json").values():
        rows.append(
            {
                "corpus": sweep["config"]["corpus"],
                "scale": sweep["config"]["scale"],
                "best constant LR": f"{sweep['best_learning_rate']:g}",
                "its final val loss": f"{sweep['best_mean_val_loss']:.3f}",
                "LR ten times lower": f"+{sweep['margin_10x_lower']:.3f}",
                "LR ten times higher": f"+{sweep['margin_10x_higher']:.3f}",
                "seeds": str(len(sweep["final_val_loss"])),
            }
        )
    return markdown(rows)


def paper() -> str:
    """Return the paper's Tables 1 and 2: our values beside the printed ones."""
    path = RESULTS / "paper" / "mini" / "tables.csv"
    with path.open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        table, line, dataset = cell["table"], cell["line"], cell["dataset"]
        row = rows.setdefault((table, line), {"table": table, "line": line})
        value = float(cell["best_val_loss"])
        error = float(cell["best_val_loss_standard_error"])
        printed = cell["best_val_loss_paper"]
        row[f"{dataset}, `mini`"] = f"{value:.4f} ± {error:.4f}"
        row[f"{dataset}, the paper"] = (
            f"{float(printed):.4f}" if printed else "not in it"
        )
    return markdown(list(rows.values()))
