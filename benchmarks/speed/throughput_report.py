"""The tables that throughput.py prints."""

from __future__ import annotations

from typing import Any


def scale_tables(content: dict[str, Any]) -> str:
    """Return speeds and costs at one scale, as Markdown."""
    episode, evaluation = content["episode"], content["evaluation"]
    seconds = evaluation["seconds"]
    how = "extrapolated" if episode["extrapolated"] else "run in full"
    memory = content["memory"]["bytes_per_extra_member"]
    rows = [
        ("whole episode, gym.make, s", f"{episode['gym']['seconds']:.2f}"),
        (
            f"whole episode, plain ({how}), s",
            f"{episode['plain_seconds']['median']:.2f}",
        ),
        (
            "of which evaluations",
            f"{episode['plain'][0]['evaluation_seconds']:.2f}",
        ),
        ("environment's overhead", f"{episode['gym']['overhead_share']:.2%}"),
        ("exact evaluation, s", f"{seconds['exact_val']['median']:.3f}"),
        (
            f"{evaluation['random_batches']} random batches x 2 splits, s",
            f"{seconds['random_batches_train_and_val']['median']:.3f}",
        ),
        ("its standard deviation, nats", f"{evaluation['random_val_sd']:.4f}"),
        (
            "memory per further member, MB",
            "n/a" if memory is None else f"{memory / 1e6:.1f}",
        ),
        (
            "cost per member, larger over smaller population",
            f"{content['linear']['larger_over_smaller']['median']:.2f}",
        ),
    ]
    for row in content["snapshots"]:
        taken, back = row["snapshot_seconds"], row["restore_seconds"]
        value = f"{taken['median'] * 1e3:.2f} / {back['median'] * 1e3:.2f}"
        rows.append((f"snapshot / restore of {row['size']}, ms", value))
    lines = ["| cost | |", "|---|---|", *(f"| {name} | {v} |" for name, v in rows)]
    return "\n\n".join(
        [
            speed_table(content["training"]),
            speed_table(content["widths"]),
            "\n".join(lines),
        ]
    )


def speed_table(table: dict[str, dict[str, Any]]) -> str:
    """Return the rows of `summarize` as a Markdown table."""
    lines = [
        "| variant | E | characters/s, median (min to max) | speed over reference, "
        "median (min to max) | reference | model GFLOP/s | utilization |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        speed, ratio = row["tokens_per_second"], row.get("ratio")
        versus = "n/a"
        if ratio is not None:
            versus = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        lines.append(
            f"| {name} | {row['size']} | {speed['median']:,.0f} ({speed['min']:,.0f} "
            f"to {speed['max']:,.0f}) | {versus} | {row.get('reference', 'n/a')} | "
            f"{row['model_flops_per_second'] / 1e9:,.1f} | {row['utilization']:.0%} |"
        )
    return "\n".join(lines)
