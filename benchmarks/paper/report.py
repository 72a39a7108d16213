"""The results of `paper/tables.py` as the paper's tables, in Markdown and CSV."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison.jobs import env_name
from benchmarks.paper.results import (
    BASELINES,
    COMPARED,
    SPEED,
    Results,
    differences,
    identical_lines,
    published_faults,
    run_sd,
    standard_error,
    values,
)
from benchmarks.paper.values import (
    DATASETS,
    INFERENCE,
    LINES,
    METRICS,
    PLACEBO_SPREAD,
    RUN_SD,
    Line,
    printed,
)
from benchmarks.provenance import provenance
from benchmarks.table_text import NOTHING, estimate_text, markdown

LOSSES = ("final_train_loss", "best_val_loss", "final_val_loss", "test_loss")
HEADINGS = {
    "final_train_loss": "final train loss",
    "best_val_loss": "best val loss",
    "train_seconds": "train time, s",
    "final_val_loss": "final val loss",
    "test_loss": "test loss",
}
MIN_SEEDS = 5  # with fewer, bootstrap intervals are too narrow


def dataset(env: str) -> str:
    """Return the corpus' name in the paper, or ours."""
    return DATASETS.get(env, env_name(env))


def _mean(sample: NDArray[np.float64], digits: int) -> str:
    error = standard_error(sample)
    text = f"{np.mean(sample):.{digits}f}"
    return text if error is None else f"{text} ± {error:.{digits}f}"


def _number(value: float | None, form: str = ".4f") -> str:
    return NOTHING if value is None else format(value, form)


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "one run: open"}[value]


def _line_cells(results: Results, line: Line, env: str) -> dict[str, str]:
    """Return one line of Table 1 or 2."""
    runs = results.runs.get(env, {}).get(line)
    paper = printed(line, env)
    cells = {
        "dataset": dataset(env),
        "method" if line.table == 1 else "variation": line.label,
        "peak LR": NOTHING if runs is None else f"{runs[0]['learning_rate']:g}",
    }
    for metric, heading in HEADINGS.items():
        digits = 2 if metric == "train_seconds" else 4
        sample = None if runs is None else values(runs, metric)
        cells[heading] = NOTHING if sample is None else _mean(sample, digits)
        if metric in METRICS:
            value = paper.get(metric)
            cells[f"{heading}: paper"] = _number(value, f".{digits}f")
    lost = sum(bool(run["metrics"]["diverged"]) for run in runs or ())
    if lost:
        cells["diverged"] = f"{lost} of {len(runs or ())}"
    return cells


# ----------------------------------------------------------------------------- report


def table(results: Results, number: int) -> str:
    """Return Table 1, corpus by corpus, or Table 2, variation by variation."""
    lines = [line for line in LINES if line.table == number]
    if number == 1:
        places = [(line, env) for env in results.envs for line in lines]
    else:
        places = [(line, env) for line in lines for env in results.envs]
    shown = [(line, env) for line, env in places if _known(results, line, env)]
    return markdown([_line_cells(results, line, env) for line, env in shown])


def _known(results: Results, line: Line, env: str) -> bool:
    """Return whether the line has our runs or the paper's values."""
    ran = line.kind != "real" and bool(printed(line, env))
    return env in results.runs or ran


def inference_table(results: Results) -> str:
    """Return characters generated per second."""
    rows = []
    for env in results.envs:
        for line in (line for line in LINES if _known(results, line, env)):
            runs = results.runs.get(env, {}).get(line, [])
            speeds = [run["metrics"].get(SPEED) for run in runs]
            measured = next((speed for speed in speeds if speed is not None), None)
            paper = INFERENCE.get((line.table, line.name), {}).get(env)
            rows.append(
                {
                    "dataset": dataset(env),
                    "line": line.key,
                    "characters/s": _number(measured, ".0f"),
                    "paper": _number(paper, ".0f"),
                }
            )
    return markdown(rows)


def noise_table(results: Results) -> str:
    """Return the run-to-run sd of the baseline, ours and the paper's."""
    rows = []
    for env in results.envs:
        runs = results.runs.get(env, {}).get(BASELINES[1])
        cells = {"dataset": dataset(env)}
        for metric in LOSSES:
            sd = None if runs is None else run_sd(values(runs, metric))
            cells[f"sd of {HEADINGS[metric]}"] = _number(sd)
        cells["paper: run-to-run sd"] = _number(RUN_SD.get(env))
        cells["paper: placebo spread"] = _number(PLACEBO_SPREAD.get(env))
        rows.append(cells)
    return markdown(rows)


def difference_table(results: Results) -> str:
    """Return all differences against the noise floor."""
    rows = []
    for gap in differences(results):
        cells = {"dataset": dataset(gap.env), "minus cosine": gap.label}
        for metric in COMPARED:
            heading = HEADINGS[metric]
            cells[f"{heading} (95 % interval)"] = estimate_text(gap.estimates[metric])
            cells[f"{heading}: beyond chance"] = _yes(gap.beyond(metric))
        cells["paper, best val loss"] = _number(gap.paper, "+.4f")
        rows.append(cells)
    return markdown(rows)


def published_verdict(results: Results) -> str:
    """Return whether the agent as published equals the cosine baseline."""
    faults = published_faults(results)
    if faults:
        return f"FAULT: as published differs from cosine in {'; '.join(faults)}."
    count = sum(line.kind == "published" for line in LINES) * len(results.runs)
    return (
        f"As published equals cosine at the same rate number for number, in all "
        f"{count} pairs of lines: every loss, at every evaluation, of every seed."
    )


def identity_verdict(results: Results) -> str:
    """Return which lines under real control have the same results."""
    sentences = [
        f"On {dataset(env)} these are the same number for number, since what sets "
        f"them apart changed no action: {'; '.join(line.key for line in group)}."
        for env, group in identical_lines(results)
    ]
    return " ".join(sentences) or "No two lines under real control are the same."


def notes(results: Results) -> list[str]:
    """Return notes on how to read the tables."""
    seeds = len(next(iter(next(iter(results.runs.values())).values())))
    found = [
        "Ours are means ± standard errors (std / sqrt(n)) over "
        f"{seeds} seed{'s' if seeds > 1 else ''}, the same in every line.",
        "Table 1 starts from half the preset's rate and Table 2 from the whole, as the "
        "paper's 1e-3 and 2e-3. Table 2's changes are cumulative, as in its code.",
        "Real control: the agent's rate, after warm-up, times the "
        f"{results.real_schedule} schedule, is the optimizer's. As published: its rate "
        "trains nothing, and cosine decides. The paper's figures belong to the latter.",
        "Ties as coded: the released agent takes the first of equally good actions, "
        "which lowers the rate by a tenth in every state it has not seen before. In "
        "the other lines a tie keeps the rate; the paper does not say.",
        "Ours evaluates the fixed validation text, the paper 200 random batches. Final "
        "train loss is here the mean since the last evaluation, there that of one "
        "batch. Train time is here a run's share of runs packed side by side.",
    ]
    if results.scale != "paper":
        found.append(
            f"Scale {results.scale}: a smaller model and shorter runs than the "
            "paper's, so that lines compare with each other, and not with the paper."
        )
    if seeds < MIN_SEEDS:
        found.append(
            f"With {seeds} seeds a bootstrap interval is narrower than it claims; "
            "hence the second condition, the noise floor."
        )
    for env, of_lines in results.records.items():
        if not next(iter(of_lines.values()))["corpus"]["corpus_complete"]:
            found.append(f"{env} is a partial copy: not the text that the paper used.")
    found += [f"Missing: {env}. {why}." for env, why in results.missing.items()]
    return found


def markdown_report(results: Results) -> str:
    """Return the whole report."""
    source = provenance()
    figures = [
        f"![Figure {number}](figure-{number}.svg)\n\nFigure {number}. Validation and "
        f"training loss on {dataset(env)} over iterations, all runs overlaid."
        for number, env in enumerate(results.envs, 1)
        if env in results.runs
    ]
    parts = [
        f"# The paper's tables, scale {results.scale}",
        f"`{source['command']}`, commit {source['commit']}, code {source['code']}, "
        f"on {source['hardware']['cpu_capability']}.",
        "\n".join(f"- {note}" for note in notes(results)),
        "## Table 1: baseline and Q-learning",
        table(results, 1),
        "## Table 2: ablations",
        table(results, 2),
        "## As published",
        published_verdict(results),
        "## Under real control",
        identity_verdict(results),
        "## Noise floor",
        "The sd between runs of the baseline of Table 1, in nats; of the paper, what "
        "its released results show for best validation loss.",
        noise_table(results),
        "## Differences",
        "Each line minus cosine at the same rate, seed by seed. A difference counts "
        "where its interval is clear of zero and it is larger than the noise floor.",
        difference_table(results),
        "## Inference",
        inference_table(results),
        "## Figures",
        *figures,
    ]
    return "\n\n".join(parts) + "\n"


def csv_rows(results: Results) -> list[dict[str, Any]]:
    """Return one row per line and corpus, numbers only."""
    rows = []
    for env, of_lines in results.runs.items():
        for line, runs in of_lines.items():
            paper = printed(line, env)
            row: dict[str, Any] = {
                "table": line.table,
                "dataset": dataset(env),
                "scale": results.scale,
                "line": line.label,
                "method": line.method,
                "peak_learning_rate": runs[0]["learning_rate"],
                "runs": len(runs),
                "diverged": sum(bool(run["metrics"]["diverged"]) for run in runs),
            }
            for metric in HEADINGS:
                sample = values(runs, metric)
                row[metric] = float(np.mean(sample))
                row[f"{metric}_standard_error"] = standard_error(sample)
                row[f"{metric}_paper"] = paper.get(metric)
            row[SPEED] = runs[0]["metrics"].get(SPEED)
            rows.append(row)
    return rows
