"""Fit a law of the loss curve to real runs, and test it on held-out runs.

    python -m benchmarks.surrogate.fitting --env shakespeare --scale tiny    # 5 minutes
    python -m benchmarks.surrogate.fitting --env shakespeare --scale mini --no-collect

The script trains the runs of `surrogate/runs.py`, unless they are in the folder: the
same command continues, and ``--most 4`` stops after four runs. Runs of other code are
never continued. It fits
`lr_gym.fit_surrogate` to all runs, and two published laws to the runs without damage.
It compares the three on held-out schedules and random walks at four other peaks.
Written into `--out`:

- ``{env}-{scale}-fit.npz``, ``-held-out.npz``: the recorded runs
- ``{env}-{scale}.json``: the law, for ``gym.make(..., trainer="path")``
- ``{env}-{scale}-report.json``: errors of all laws, per run and overall
- ``{env}-{scale}.svg``: predicted and real curves
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from agents.command_line import parse_command_line
from benchmarks.dependencies import code_hash
from benchmarks.results_file import write_result
from benchmarks.surrogate import runs as law_runs
from benchmarks.surrogate.pictures import draw_curves
from benchmarks.surrogate.published_laws import MULTI_POWER, TISSUE, PublishedLaw
from lr_gym import LossLaw, TrainingConfig, fit_surrogate, load_corpus, preset
from lr_gym.files import only_process, write_bytes, write_text
from lr_gym.progress import ProgressBar
from lr_gym.surrogate.replay import predict
from lr_gym.surrogate.runs import RecordedRun, load_runs, save_runs, undone_chunks
from lr_gym.trainers.base import FloatArray

OUR_LAW = "lr-gym"


@dataclass
class Args:
    """Collect runs, fit, and report held-out errors."""

    env: str = "shakespeare"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: str = "tiny"
    """tiny, mini or paper."""
    collect: bool = True
    """Train missing runs; --no-collect fits the runs that are there."""
    most: int | None = None
    """Train at most this many missing runs, and do not fit."""
    size: int = 4
    """Runs that train as one population; the file is written after each population."""
    out: Path = Path("benchmarks/results/surrogate")
    """Folder of runs, laws and reports."""


def collect(
    config: TrainingConfig,
    plans: Sequence[law_runs.Plan],
    path: Path,
    args: Args,
    most: int | None,
) -> int:
    """Train the planned runs that are not in the file; return how many."""
    runs = load_runs(path) if path.exists() else []
    same_code = not runs or code_of(path) == runs_code()
    finished = {(run.name, run.seed) for run in runs}
    missing = [plan for plan in plans if (plan.name, plan.seed) not in finished]
    missing = missing[:most]
    if not same_code:
        say = f"{path} has {len(runs)} old runs: other code made them"
        if missing:
            raise SystemExit(
                f"error: {say}, and {len(missing)} are missing. Move the file away to "
                "train all again, or fit these with --no-collect"
            )
        print(say)
    if not missing:
        return 0
    corpus = load_corpus(args.env)
    total = len(missing) * config.max_iters
    with ProgressBar(total=total, desc=path.stem, unit="it") as bar:
        for first in range(0, len(missing), args.size):
            group = missing[first : first + args.size]
            runs += law_runs.collect(
                config, corpus, group, size=args.size, progress=bar.update
            )
            save_with_code(path, runs)
    return len(missing)


def runs_code() -> str:
    """Return the hash of the code that a recorded run depends on."""
    return code_hash("benchmarks.surrogate.runs")


def code_of(path: Path) -> str | None:
    """Return the hash of the code that made a file of runs; None if it has none."""
    with np.load(path) as file:
        return str(file["code"]) if "code" in file.files else None


def save_with_code(path: Path, runs: Sequence[RecordedRun]) -> None:
    """Write runs, and the hash of the code that made them."""
    code = io.BytesIO()
    np.save(code, np.array(runs_code()))
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        save_runs(part, runs)
        with zipfile.ZipFile(part, "a") as file:
            # Without the time, so that the same runs are the same bytes.
            file.writestr(zipfile.ZipInfo("code.npy"), code.getvalue())
        write_bytes(path, part.read_bytes())


def scores(predicted: FloatArray, runs: Sequence[RecordedRun]) -> dict[str, Any]:
    """Return the errors of predicted losses, (R, m - 1), in nats.

    ``r2_curves`` is the explained share of the variance over all evaluations after the
    first tenth of the runs. No law describes the first losses.
    """
    real = np.stack([run.val_loss for run in runs])[:, 1:]
    points = np.asarray(runs[0].iterations)[1:]
    survived = np.isfinite(real[:, -1])
    error = (predicted - real)[survived]
    late = points > points[-1] / 10
    spread = real[survived][:, late] - real[survived][:, late].mean()
    final = error[:, -1]
    return {
        "runs": int(survived.sum()),
        "mean_final_error": float(np.abs(final).mean()),
        "median_final_error": float(np.median(np.abs(final))),
        "worst_final_error": float(np.abs(final).max()),
        "rank_correlation": float(
            spearmanr(predicted[survived, -1], real[survived, -1]).statistic
        ),
        "r2_curves": float(1.0 - (error[:, late] ** 2).sum() / (spread**2).sum()),
        "final": {
            run.name: [float(run.val_loss[-1]), float(guess)]
            for run, guess, finite in zip(runs, predicted[:, -1], survived, strict=True)
            if finite
        },
    }


def our_losses(law: LossLaw, runs: Sequence[RecordedRun]) -> FloatArray:
    """Return the losses that the law predicts for an average seed, (R, m - 1)."""
    rates = np.stack([run.rates for run in runs])
    points = np.asarray(runs[0].iterations)
    losses = predict(law.constants, rates, points, undone=undone_chunks(runs))
    return losses[0][:, 1:]


def main(args: Args) -> dict[str, Any]:
    """Collect, fit, report; return the report, or {} after ``--most``."""
    config = preset(args.scale, args.env)
    name = f"{Path(args.env).stem}-{args.scale}"
    try:
        with only_process(args.out / f".{name}.running"):
            return collect_and_fit(config, name, args)
    except OSError as error:
        raise SystemExit(f"error: {error}") from error


def collect_and_fit(config: TrainingConfig, name: str, args: Args) -> dict[str, Any]:
    """Collect, fit, report, as `main` does; no second process writes these files."""
    files = {kind: args.out / f"{name}-{kind}.npz" for kind in ("fit", "held-out")}
    if args.collect:
        plans = (law_runs.fitting_plan(config), law_runs.held_out_plan(config))
        left = args.most
        for planned, path in zip(plans, files.values(), strict=True):
            trained = collect(config, planned, path, args, left)
            left = None if left is None else left - trained
        if args.most is not None:
            return {}
    fitting, held_out = (load_runs(path) for path in files.values())

    corpus = load_corpus(args.env)
    law = fit_surrogate(fitting, config, entropy_rate=corpus.entropy_rate)
    law.save(args.out / f"{name}.json")
    laws: dict[str, Callable[[Sequence[RecordedRun]], FloatArray]] = {
        OUR_LAW: lambda runs: our_losses(law, runs)
    }
    # The published laws do not model damage; they fit better without damaged runs.
    highest = 2 * max(law_runs.HELD_OUT_PEAKS) * config.learning_rate
    undamaged = [run for run in fitting if run.rates.max() <= highest]
    for published in (TISSUE, MULTI_POWER):
        laws[published.name] = _fitted(published, undamaged)
    report: dict[str, Any] = {
        "config": asdict(config),
        "corpus": corpus.facts(),
        "fitted_on": len(fitting),
        "laws": {
            label: {
                "fitting": scores(guess(fitting), fitting),
                "held_out": scores(guess(held_out), held_out),
            }
            for label, guess in laws.items()
        },
    }
    report = write_result(args.out / f"{name}-report.json", report)
    title = f"{name}: {len(held_out)} held-out runs, predicted and real"
    picture = draw_curves(title, held_out, laws[OUR_LAW](held_out))
    write_text(args.out / f"{name}.svg", picture)
    print(table(report))
    return report


def _fitted(
    published: PublishedLaw, fitting: Sequence[RecordedRun]
) -> Callable[[Sequence[RecordedRun]], FloatArray]:
    parameters = published.fit(fitting)
    return lambda runs: published.losses(parameters, runs)


def table(report: dict[str, Any]) -> str:
    """Return the held-out errors of all laws as lines of text."""
    lines = [
        f"{'held-out runs':36s} final error  median   worst    rank  R2 of curves",
    ]
    for label, parts in report["laws"].items():
        row = parts["held_out"]
        lines.append(
            f"{label:36s} {row['mean_final_error']:11.4f} "
            f"{row['median_final_error']:7.4f} {row['worst_final_error']:7.4f} "
            f"{row['rank_correlation']:7.3f} {row['r2_curves']:13.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
