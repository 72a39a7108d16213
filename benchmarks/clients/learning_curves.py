"""The figure of stock learners: returns while they learn, simulated and real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.drawing import COLORS, FAINT, INK, draw

NAMES = {
    "sb3-ppo": "PPO (SB3)",
    "sb3-dqn": "DQN (SB3)",
    "sb3-a2c": "A2C (SB3)",
    "cleanrl-ppo": "PPO (CleanRL)",
    "cleanrl-dqn": "DQN (CleanRL)",
}
LIMITS = (0.9, 1.6)  # of the axis: a run that diverges lies far below
MIN_EPISODES = 4  # per point
KINDS = {"sim": "simulated training", "real": "real training"}


def curves(results: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the learners of a kind in the order of `NAMES`, by observation."""
    for learner in NAMES:
        for observation in ("default", "learning"):
            result = results.get(f"{kind} {learner} {observation}")
            if result is not None:
                yield {"learner": learner, "observation": observation, **result}


def figure(results: Mapping[str, Any]) -> str:
    """Return an SVG with a panel per kind of training."""

    def paint(axes: Axes, kind: str) -> None:
        for result in curves(results, kind):
            paint_learner(axes, result)
        references = results.get(f"{kind} references")
        if references is not None:
            paint_references(axes, references)
        axes.set_title(KINDS[kind], loc="left")
        axes.set_xlabel("decisions")
        axes.set_ylabel("return, nats per character")
        axes.set_ylim(LIMITS)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_formatter("{x:,.0f}")

    def simulated(axes: Axes) -> None:
        paint(axes, "sim")

    def real(axes: Axes) -> None:
        paint(axes, "real")
        for name, color in zip(NAMES.values(), COLORS, strict=False):
            axes.plot([], [], color=color, label=name)
        axes.plot([], [], color=FAINT, label="observation that learns")
        axes.plot([], [], color=FAINT, ls="--", label="default observation")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    svg = draw("Returns of stock learners", (10.0, 3.6), simulated, real)
    return svg.replace("currentColor", FAINT) + "\n"


def paint_learner(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draw the mean over seeds, and a band from the lowest to the highest."""
    runs = list(result["runs"].values())
    points = min(len(run["returns"]) for run in runs)
    # With few episodes a point of the curve is one episode.
    width = MIN_EPISODES if runs[0]["episodes"] == len(runs[0]["returns"]) else 1
    points -= points % width
    returns = np.array([run["returns"][:points] for run in runs])
    returns = returns.reshape(len(runs), -1, width).mean(axis=2)
    steps = np.mean([run["steps"][:points] for run in runs], axis=0)[width - 1 :: width]
    color = COLORS[list(NAMES).index(result["learner"])]
    dashed = result["observation"] == "default"
    axes.plot(steps, returns.mean(axis=0), color=color, ls="--" if dashed else "-")
    axes.fill_between(
        steps, returns.min(axis=0), returns.max(axis=0), color=color, alpha=0.15, lw=0
    )


def paint_references(axes: Axes, references: Mapping[str, Any]) -> None:
    """Draw keep and the good sequence as horizontal lines with names."""
    good = references["good_sequence"]
    lines = {
        "keep": references["keep"],
        "good sequence": good["return"] if isinstance(good, dict) else good,
    }
    for name, value in lines.items():
        axes.axhline(value, color=INK, lw=0.8, ls=":")
        axes.annotate(
            name,
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
        )
