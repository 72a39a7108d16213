"""Costs of the controller: the values in the result file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.controller.cost import Args, Stack, main, measure, stack_training

UPDATES = {"update in the climb", "update after it"}
PARTS = UPDATES | {
    "hooks in the climb",
    "hooks after it",
    "snapshot, same",
    "undo, same",
}


def test_costs_are_kept_per_case(tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    out.write_text(json.dumps({"mini": {"earlier": True}}))
    main(Args(cases=("tiny",), repeats=2, out=out))
    results = json.loads(out.read_text())
    assert results["mini"] == {"earlier": True}
    tiny = results["tiny"]
    assert set(tiny["seconds"]) == PARTS | {"update"}
    assert set(tiny["in_updates"]) == PARTS
    assert all(cost["min"] > 0.0 for cost in tiny["in_updates"].values())
    for name in ("in the climb", "after it"):
        parts, whole = (
            tiny["seconds"][f"{part} {name}"] for part in ("hooks", "update")
        )
        assert parts["max"] < whole["max"]
    # Weights, and AdamW's two moments of each.
    assert tiny["snapshot_bytes"] / tiny["weight_bytes"] == pytest.approx(3.0, rel=1e-2)


def test_samples_do_not_grow_with_the_weights() -> None:
    small, large = (
        measure(stack_training(Stack(width, 1, vocabulary)), 1)
        for width, vocabulary in ((16, 64), (128, 4096))
    )
    assert small["sample_bytes"] == small["weight_bytes"]  # all are sampled
    assert large["weight_bytes"] > 20 * small["weight_bytes"]
    at_most = 4 * 2**16 * large["tensors"]
    assert large["sample_bytes"] < min(at_most, large["weight_bytes"])
