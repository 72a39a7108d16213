"""Fit the law to published loss curves of larger models, and test it on others.

    git clone https://github.com/thu-yao-01-luo/MultiPowerLaw
    python -m benchmarks.surrogate.public_curves --curves MultiPowerLaw

Luo et al. (2025, arXiv 2503.12811) publish nine loss curves of each of three language
models, of 25M, 100M and 400M parameters. As they do, fit three curves (cosine and
constant for 24,000 steps, one step down) and predict the other six, up to 72,000 steps.
Nothing of the curves is kept but the errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from agents.command_line import parse_command_line
from benchmarks.results_file import write_result
from benchmarks.table_text import markdown
from lr_gym.files import user_path
from lr_gym.surrogate.curve_fitting import fit_curves, predict_curves
from lr_gym.surrogate.runs import RecordedRun
from lr_gym.trainers.base import FloatArray

FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
PREDICTED = (
    *("constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000"),
    *("wsdcon_3", "wsdcon_18"),
)
# By parameters in millions: mean absolute error in nats, and the mean over the curves
# of the largest relative error. From the README of the curves' authors.
PUBLISHED = {25: (0.00376, 0.00409), 100: (0.00435, 0.00583), 400: (0.00484, 0.00995)}
WARMUP, PEAK, LOWEST = 2160, 3e-4, 3e-5
COOLDOWN = (20_000, 24_000)
STEP = 8_000  # of the learning rate, in wsdcon
Shape = Callable[[FloatArray], FloatArray]  # of steps after the warm-up, to rates


@dataclass
class Args:
    """Fit and predict; print and write the errors."""

    curves: Path
    """A clone of the repository with the curves."""
    out: Path = Path("benchmarks/results/surrogate/public_curves.json")
    """The result file."""


def rates(name: str, steps: int) -> FloatArray:
    """Return the learning rate of every step of a curve, by its name."""
    kind, *numbers = name.split("_")
    first = float(numbers[0])
    shapes: dict[str, Shape] = {
        "constant": partial(np.full_like, fill_value=PEAK),
        "cosine": partial(_cosine, total=first),
        "wsdcon": partial(_step, after=first * 1e-5),
        "wsd": partial(_cooldown, exponential=True),
        "wsdld": partial(_cooldown, exponential=False),
    }
    warmup = np.linspace(0.0, PEAK, WARMUP)
    after = np.arange(WARMUP, steps, dtype=np.float64)
    return np.concatenate([warmup, shapes[kind](after)])


def _cosine(step: FloatArray, total: float) -> FloatArray:
    progress = (step - WARMUP) / (total - WARMUP)
    return LOWEST + 0.5 * (PEAK - LOWEST) * (1.0 + np.cos(np.pi * progress))


def _step(step: FloatArray, after: float) -> FloatArray:
    return np.where(step < STEP, PEAK, after)


def _cooldown(step: FloatArray, *, exponential: bool) -> FloatArray:
    first, last = COOLDOWN
    share = np.clip((step - first) / (last - first), 0.0, 1.0)
    if exponential:
        return np.asarray(PEAK ** (1.0 - share) * LOWEST**share)
    return np.asarray(PEAK * (1.0 - share) + LOWEST * share)


def read_curve(folder: Path, millions: int, name: str) -> RecordedRun:
    """Return a published curve."""
    path = folder / "loss_curve_repo" / f"csv_{millions}" / f"{name}.csv"
    table = np.genfromtxt(path, delimiter=",", names=True)
    steps = table["step"].astype(np.int64)
    used = steps < COOLDOWN[1] if steps.max() == COOLDOWN[1] else steps > 0
    return RecordedRun(
        name=name,
        rates=rates(name, int(steps.max()) + 1),
        iterations=steps[used],
        val_loss=table["loss"][used],
    )


def errors(folder: Path, millions: int) -> dict[str, Any]:
    """Fit one model's three curves; return the errors on the other six."""
    curves = [read_curve(folder, millions, name) for name in FITTED]
    started = time.perf_counter()
    law, _ = fit_curves(curves)
    seconds = time.perf_counter() - started
    by_curve = {}
    for name in PREDICTED:
        curve = read_curve(folder, millions, name)
        error = np.abs(predict_curves(law, [curve])[0] - curve.val_loss)
        worst = float((error / curve.val_loss).max())
        by_curve[name] = {"mean": float(error.mean()), "worst_relative": worst}
    mean, worst = PUBLISHED[millions]
    return {
        "parameters_millions": millions,
        "fit_seconds": seconds,
        "mean_error": fmean(row["mean"] for row in by_curve.values()),
        "worst_relative": fmean(row["worst_relative"] for row in by_curve.values()),
        "published_mean_error": mean,
        "published_worst_relative": worst,
        "by_curve": by_curve,
    }


def table(models: list[dict[str, Any]]) -> str:
    """Return a row per model."""
    return markdown(
        [
            {
                "model": f"{row['parameters_millions']}M",
                "mean error, nats": f"{row['mean_error']:.5f}",
                "published law": f"{row['published_mean_error']:.5f}",
                "largest error": f"{row['worst_relative']:.2%}",
                "published law's": f"{row['published_worst_relative']:.2%}",
                "fit, s": f"{row['fit_seconds']:.0f}",
            }
            for row in models
        ]
    )


def main(args: Args) -> dict[str, Any]:
    """Do all; return the result."""
    folder = user_path(args.curves)
    if not (folder / "loss_curve_repo").is_dir():
        raise SystemExit(
            f"error: {folder} has no folder loss_curve_repo: clone "
            "https://github.com/thu-yao-01-luo/MultiPowerLaw and pass its path"
        )
    models = [errors(folder, millions) for millions in PUBLISHED]
    print(table(models))
    return write_result(args.out, {"models": models})


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
