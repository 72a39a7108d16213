"""Write README's tables and picture from the committed result files.

    python benchmarks/readme.py            # rewrite
    python benchmarks/readme.py --check    # fail where README differs from the files

Nothing between the markers in README.md is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import draw_episodes, summarize
from lr_gym.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "images" / "shakespeare-tiny.svg"


@dataclass
class Args:
    """Bring README in line with benchmarks/results."""

    check: bool = False
    """Change nothing; exit with an error where README is out of date."""


def comparison_records(name: str) -> list[dict[str, Any]]:
    """Return the records of a committed comparison."""
    paths = sorted((RESULTS / name / "runs").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def comparison_table(name: str) -> str:
    """Return a comparison as a Markdown table, the best agent first."""
    lines = [
        "| agent | final val loss | versus constant (95 % interval) | best val loss "
        "| final train loss | train time, s | inference, tokens/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in summarize(comparison_records(name)):
        versus = "–"  # noqa: RUF001 - a dash
        if row["versus_constant"] is not None:
            versus = (
                f"{row['versus_constant']:+.4f} ({row['versus_constant_low']:+.4f} to "
                f"{row['versus_constant_high']:+.4f})"
            )
        lines.append(
            f"| `{row['agent']}` | {row['final_val_loss']:.4f} | {versus} | "
            f"{row['best_val_loss']:.4f} | {row['final_train_loss']:.4f} | "
            f"{row['train_seconds']:.1f} | {row['inference_tokens_per_second']:.0f} |"
        )
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


def throughput(scale: str) -> dict[str, Any]:
    """Return the committed throughput of a scale, on a CPU."""
    path = RESULTS / "throughput" / f"cpu-{scale}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def training_table() -> str:
    """Return training speed against the plain loop's, mini beside tiny."""
    mini, tiny = (throughput(scale)["training"] for scale in ("mini", "tiny"))
    lines = [
        "| what trains | `mini`: characters/s | versus plain | `tiny`: characters/s "
        "| versus plain |",
        "|---|---|---|---|---|",
    ]
    for name, row in mini.items():
        if row.get("reference") == "plain" and name in tiny:
            cells = [cell for r in (row, tiny[name]) for cell in _speed(r)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _speed(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['tokens_per_second']['median']:,.0f}", _ratio(row["ratio"])


def _ratio(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


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
            _ratio(c["training"]["steps 8, make_vec, sharded"]["ratio"])
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
        "shakespeare": comparison_table("shakespeare-tiny"),
        "markov": comparison_table("markov-tiny"),
        "lr": lr_table(),
        "training": training_table(),
        "costs": cost_table(),
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
    """Rewrite or check README and its picture."""
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = rendered(before)
    if args.check:
        if after != before:
            sys.exit("README.md is out of date: run python benchmarks/readme.py")
        return
    write_text(path, after)
    write_text(PICTURE, draw_episodes(comparison_records("shakespeare-tiny")))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
