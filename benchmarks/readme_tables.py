"""README's tables of wrong rates and of simulated training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.table_text import markdown, spread_text

RESULTS = Path(__file__).resolve().parent / "results"


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return content


def scale_out() -> str:
    """Return how much faster several workers are than one."""
    result = _read("scale_out.json")
    speedup = f"{spread_text(result['speedup'])} times as fast as one"
    return f"{result['settings']['workers']} workers finish the same jobs {speedup}."


def wrong_rates() -> str:
    """Return final losses from wrong initial rates, least to greatest seed."""
    result = _read("wrong_rates.json")
    names = [_factor(factor) for factor in result["factors"]]
    rows = []
    for method, losses in result["final_val_loss"].items():
        cells = [f"{min(seeds):.2f} to {max(seeds):.2f}" for seeds in losses]
        rows.append(
            {"start LR / good LR": f"`{method}`"} | dict(zip(names, cells, strict=True))
        )
    return markdown(rows)


def _factor(factor: float) -> str:
    return f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"


def laws() -> str:
    """Return the errors of the law, and of published ones, on runs held out."""
    result = _read("surrogate/shakespeare-tiny-report.json")
    rows = []
    for name, found in result["laws"].items():
        held_out = found["held_out"]
        rows.append(
            {
                "law": name,
                "mean error of the final loss, nats": (
                    f"{held_out['mean_final_error']:.3f}"
                ),
                "median": f"{held_out['median_final_error']:.3f}",
                "worst": f"{held_out['worst_final_error']:.3f}",
                "rank correlation": f"{held_out['rank_correlation']:.2f}",
                "R2 of whole curves": f"{held_out['r2_curves']:.2f}",
                "runs": str(held_out["runs"]),
            }
        )
    return markdown(rows)


def surrogate_speed() -> str:
    """Return decisions per second of simulated training."""
    result = _read("surrogate/speed.json")
    return markdown(
        [
            {"through": name, "decisions per second": f"{speed['median']:,.0f}"}
            for name, speed in result["decisions_per_second"].items()
        ]
    )
