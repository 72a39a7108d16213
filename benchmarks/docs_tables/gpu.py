"""The table of what has been measured on a GPU, and what has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.gpu.session import COMMITTED, failed, read_part
from benchmarks.speed.gpu.speed import fastest
from benchmarks.table_text import markdown

MISSING = "not yet measured"
Runs = Mapping[str, Any]


def gpu_table(folder: Path = COMMITTED) -> str:
    """Return the table; missing results are ``not yet measured``."""
    rows: list[tuple[str, str, str, Callable[[Runs], str]]] = [
        ("checks against a CPU that passed", "all", "correct", _checks),
        ("whole episode at `paper`, s", "16", "episode", _episode),
        (
            "best val loss of that episode / of nanoGPT's loop, nats",
            "1.47",
            "episode",
            _episode_losses,
        ),
        (
            "utilisation of the matrix products, 1 / 8 members",
            "40 %",
            "speed",
            lambda runs: _groups(runs, lambda row: f"{row['utilization']:.0%}"),
        ),
        (
            "speed over nanoGPT's compiled loop, 1 / 8 members",
            "1.5",
            "speed",
            lambda runs: _groups(runs, lambda row: f"{row['ratio']['median']:.2f}"),
        ),
        (
            "1,000 iterations shaped as enwik8 (random characters), s",
            "2.5",
            "populations",
            _enwik8,
        ),
        (
            "generated characters/s, 1 / 64 texts",
            "none",
            "populations",
            _generation,
        ),
    ]
    results = {part: runs_of(folder / f"{part}.json") for _, _, part, _ in rows}
    table = [
        _row(name, _value(results[part], show), target, part)
        for name, target, part, show in rows
    ]
    return markdown([*table, *_paper(runs_of(folder / "paper.json"))])


def runs_of(path: Path) -> Runs:
    """Return the sub-runs of a part's file; {} without a file."""
    if not path.is_file():
        return {}
    content = read_part(path)
    runs: dict[str, Any] = content["runs"]
    if path.stem == "correct":  # a check with an error has not passed
        runs |= {name: {"passed": False} for name in content["errors"]}
    return runs


def _row(name: str, value: str, target: str, part: str) -> dict[str, str]:
    return {
        "measured": name,
        "result": value,
        "target": target,
        "command": f"`--parts {part}`",
    }


def _value(runs: Runs, show: Callable[[Runs], str]) -> str:
    try:
        return show(runs)
    except (KeyError, ValueError):  # the sub-run is missing or has failed
        return MISSING


def _checks(runs: Runs) -> str:
    if not runs:
        return MISSING
    checks = [run for run in runs.values() if run["passed"] is not None]
    return f"{sum(not failed(run) for run in checks)} of {len(checks)}"


def _episode(runs: Runs) -> str:
    cold, warm = (runs[f"linear, graph, {start}"] for start in ("cold", "warm"))
    texts = [f"{run['episode_seconds']:.1f}" for run in (warm, cold)]
    return f"{texts[0]}, the first with compilation {texts[1]}"


def _episode_losses(runs: Runs) -> str:
    both = (runs[name] for name in ("linear, graph, warm", "nanoGPT's loop"))
    return " / ".join(f"{run['best_val_loss']:.3f}" for run in both)


def _groups(runs: Runs, show: Callable[[dict[str, Any]], str]) -> str:
    return " / ".join(show(fastest(runs[f"E={size}"]["variants"])) for size in (1, 8))


def _enwik8(runs: Runs) -> str:
    return f"{runs['enwik8']['training_seconds']:.2f}"


def _generation(runs: Runs) -> str:
    speeds = runs["generation"]["characters_per_second_by_batch"]
    return " / ".join(f"{speeds[batch]:,.0f}" for batch in ("1", "64"))


def _paper(runs: Runs) -> list[dict[str, str]]:
    """Return a row per finished method of the paper part."""
    rows = [
        _row(
            f"best val loss, {name}",
            f"{loss['mean']:.4f} ± {loss['standard_error']:.4f}",
            "none",
            "paper",
        )
        for name, run in runs.items()
        for loss in [run["best_val_loss"]]
    ]
    return rows or [
        _row("best val losses of the paper's methods", MISSING, "none", "paper")
    ]
