"""Tables of speed: training, an episode's costs, precision, architectures."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.results_file import committed
from benchmarks.speed.architectures import table as architecture_table
from benchmarks.table_text import markdown, spread_text


def throughput(scale: str, machine: str = "cpu") -> dict[str, Any]:
    """Return the committed throughput of a scale on a CPU, or on a `wide` one."""
    return committed(f"speed/throughput/{machine}-{scale}.json")


def training() -> str:
    """Return training speed against the plain loop, by scale, on two machines."""
    columns = [
        (f"`{scale}`, {_peak_text(machine)}", throughput(scale, machine)["training"])
        for scale in ("mini", "tiny")
        for machine in ("cpu", "wide")
    ]
    names = [
        name
        for name, row in columns[0][1].items()
        if row.get("reference") == "plain"
        and "sharded" not in name  # measured before the package dropped it
        and all(name in rows for _, rows in columns)
    ]
    speeds = {
        head: f"{rows['plain']['tokens_per_second']['median']:,.0f} characters/s"
        for head, rows in columns
    }
    table: list[dict[str, str]] = [{"training loop": "plain"} | speeds]
    for name in names[1:]:
        ratios = {head: spread_text(rows[name]["ratio"]) for head, rows in columns}
        table.append({"training loop": name} | ratios)
    return markdown(table)


def _peak_text(machine: str) -> str:
    """Return the speed of a machine at bfloat16 matrix products."""
    peak = throughput("mini", machine)["matmul_peak_flops_per_second"]["bfloat16"]
    return f"{peak / 1e9:.0f} GFLOP/s"


def costs() -> str:
    """Return the costs of an episode at `mini` and `tiny`."""
    scales = ("mini", "tiny")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "whole episode through `gym.make`, s": lambda c: (
            f"{c['episode']['gym']['seconds']:.1f}"
        ),
        "the same in the plain loop, 2 x 200 random batches per decision, s": (
            lambda c: f"{c['episode']['plain_seconds']['median']:.0f}"
        ),
        "share of the episode spent in the environment's own code": lambda c: (
            f"{c['episode']['gym']['overhead_share']:.2%}"
        ),
        "one exact pass over the validation split, s": lambda c: (
            f"{c['evaluation']['seconds']['exact_val']['median']:.2f}"
        ),
        "the estimate by random batches, s": lambda c: (
            f"{c['evaluation']['seconds']['random_batches_train_and_val']['median']:.2f}"
        ),
        "standard deviation of that estimate, nats": lambda c: (
            f"{c['evaluation']['random_val_sd']:.4f}"
        ),
        "memory per additional member, MB": lambda c: (
            f"{c['memory']['bytes_per_extra_member'] / 1e6:.1f}"
        ),
        "training state per member, MB": lambda c: (
            f"{c['memory']['plain_state_bytes'] / 1e6:.1f}"
        ),
        "speed of 8 members in one process versus SubprocVecEnv": lambda c: spread_text(
            c["training"]["steps 8, make_vec"]["ratio"]
        ),
    }
    return markdown(
        [
            {"": name} | {f"`{scale}`": text(throughput(scale)) for scale in scales}
            for name, text in rows.items()
        ]
    )


def precision() -> str:
    """Return the paired differences between fast paths and float32."""
    rows = []
    for result in committed("speed/precision.json").values():
        config, difference = result["config"], result["difference"]
        pairs = len(result["final_val_loss"]["fast, evaluated as fast"])
        rows.append(
            {
                "corpus": config["corpus"],
                "scale": config["scale"],
                "precision": config["precision"],
                "compile": config["compile"],
                "pairs": str(pairs),
                "mean difference, nats (95 % interval)": (
                    f"{difference['mean']:+.4f} ({difference['low']:+.4f} to "
                    f"{difference['high']:+.4f})"
                ),
            }
        )
    return markdown(rows)


def architectures() -> str:
    """Return speeds and learning rates of the models."""
    return architecture_table(committed("speed/architectures.json"))


def scale_out() -> str:
    """Return the seconds that one and several workers take for the same jobs."""
    result = committed("speed/scale_out.json")
    return markdown(
        [
            {
                "workers": workers,
                "seconds, median": f"{median(seconds):.1f}",
                "speedup, median (range)": (
                    "1" if workers == "1" else spread_text(result["speedup"])
                ),
            }
            for workers, seconds in result["seconds"].items()
        ]
    )
