"""From records of runs to a table, figures and one self-contained HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy import stats

from lr_gym.files import write_text

METRICS = (
    "final_train_loss",
    "best_val_loss",
    "final_val_loss",
    "train_seconds",
    "inference_tokens_per_second",
    "training_episodes",
)
REFERENCE = "constant"  # the agent that never acts: what the others are compared with
# Okabe and Ito's colours, told apart by colour-blind readers too; dashes repeat them.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999999",
)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the bootstrap 95 % interval of the mean, or `None` below two values."""
    data = np.asarray(values, dtype=float)
    if len(data) < 2:
        return None
    if np.ptp(data) == 0.0:
        return float(data[0]), float(data[0])
    bounds = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=9_999,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(bounds.low), float(bounds.high)


def summarize(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per agent, the lowest mean final validation loss first.

    Every metric is a mean over seeds with ``_low`` and ``_high``, its bootstrap 95 %
    interval (`None` for a single seed); ``versus_constant`` is the mean difference in
    final validation loss to the agent that never acts, seed by seed.
    """
    by_agent: dict[str, dict[int, dict[str, Any]]] = {}
    for record in records:
        job = record["job"]
        by_agent.setdefault(job["agent"], {})[job["seed"]] = record["metrics"]
    reference = by_agent.get(REFERENCE, {})
    rows = []
    for agent, runs in by_agent.items():
        row: dict[str, Any] = {"agent": agent, "seeds": len(runs)}
        row["diverged"] = sum(metrics["diverged"] for metrics in runs.values())
        columns = {name: [m[name] for m in runs.values()] for name in METRICS}
        shared = sorted(runs.keys() & reference.keys())
        if shared and agent != REFERENCE:
            columns["versus_constant"] = [
                runs[seed]["final_val_loss"] - reference[seed]["final_val_loss"]
                for seed in shared
            ]
        for name in (*METRICS, "versus_constant"):
            values = [v for v in columns.get(name, []) if v is not None]
            bounds = interval(values)
            row[name] = float(np.mean(values)) if values else None
            row[f"{name}_low"], row[f"{name}_high"] = bounds or (None, None)
        rows.append(row)
    return sorted(rows, key=lambda row: row["final_val_loss"])


def write_summary(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_report(
    path: Path,
    records: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    command: str,
) -> Path:
    """Write the page: verdict, table, figures, and how to get the same again."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default_for_string=True, default=True),
    )
    environment.filters["number"] = _number
    order = [row["agent"] for row in rows]
    page = environment.get_template("report.html.j2").render(
        rows=rows,
        record=records[0],
        seeds=rows[0]["seeds"],
        verdict=verdict(rows),
        command=command,
        figures=[
            (title, Markup(_svg(_figure(records, order, key, label, scale))))
            for title, key, label, scale in (
                ("Validation loss", "val_loss", "nats per character", "linear"),
                ("Training loss", "train_loss", "nats per character", "linear"),
                ("Learning rate in the optimizer", "optimizer_lr", "", "log"),
            )
        ],
    )
    write_text(path, page)
    return path


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Say in a sentence or two what the table shows, no more than it supports."""
    best = rows[0]
    text = (
        f"Lowest mean final validation loss: {best['agent']}, "
        f"{best['final_val_loss']:.4f} nats per character."
    )
    if best["versus_constant"] is None:
        if best["agent"] == REFERENCE and len(rows) > 1:
            text += " No agent did better than never touching the learning rate."
        return text
    gain = -best["versus_constant"]
    text += f" That is {gain:.4f} below never touching the learning rate"
    low, high = best["versus_constant_low"], best["versus_constant_high"]
    if low is None:
        return text + "; one seed tells nothing about how sure that is."
    text += (
        f" (95 % interval {-high:.4f} to {-low:.4f}, {best['seeds']} seeds, paired)."
    )
    if best["seeds"] < 5:
        text += " With so few seeds an interval is a hint, not evidence."
    return text


def _number(value: float | None, digits: int = 4, signed: bool = False) -> str:
    if value is None:
        return "–"  # noqa: RUF001 - a dash
    return f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"


def _figure(
    records: Sequence[dict[str, Any]],
    order: Sequence[str],
    key: str,
    label: str,
    scale: str,
) -> Figure:
    """Draw `key` against the iteration: mean and range over seeds, a line per agent."""
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    _plot(figure.subplots(), records, order, key, label, scale)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_episodes(records: Sequence[dict[str, Any]]) -> str:
    """Return an SVG of validation loss and learning rate, side by side, per agent."""
    order = [row["agent"] for row in summarize(records)]
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    loss, rate = "validation loss, nats per character", "learning rate in the optimizer"
    _plot(left, records, order, "val_loss", loss, "linear")
    _plot(right, records, order, "optimizer_lr", rate, "log")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return _svg(figure)


def _plot(
    axes: Axes,
    records: Sequence[dict[str, Any]],
    order: Sequence[str],
    key: str,
    label: str,
    scale: str,
) -> None:
    # Before the first chunk nothing was trained: no training loss, no rate in use.
    first = 0 if key == "val_loss" else 1
    for index, agent in enumerate(order):
        runs = [r["trajectory"] for r in records if r["job"]["agent"] == agent]
        steps = min(len(run) for run in runs)  # a diverged run ends early
        values = np.array([[step[key] for step in run[first:steps]] for run in runs])
        iterations = [step["iteration"] for step in runs[0][first:steps]]
        style = "-" if index < len(COLORS) else "--"
        color = COLORS[index % len(COLORS)]
        axes.plot(iterations, values.mean(axis=0), style, color=color, label=agent)
        if len(runs) > 1:
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(iterations, low, high, color=color, alpha=0.12, lw=0)
    if scale == "linear":
        _leave_out_the_start(axes)
    axes.set_xlabel("iteration")
    axes.set_ylabel(label)
    axes.set_yscale(scale)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _leave_out_the_start(axes: Axes) -> None:
    """Leave the first tenth of the run, a cliff in every loss, out of the picture."""
    lines = [(line.get_xdata(), line.get_ydata()) for line in axes.get_lines()]
    start = 0.1 * max(np.max(x) for x, _ in lines)
    shown = np.concatenate([np.asarray(y)[np.asarray(x) >= start] for x, y in lines])
    margin = 0.05 * np.ptp(shown) + 1e-3
    axes.set_ylim(shown.min() - margin, shown.max() + margin)


def _svg(figure: Figure) -> str:
    """Return the figure as an SVG element to stand inside a page."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "lr-gym"}):  # the same drawing, the same bytes
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]
