"""Costs of a decision: the values in the result file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.controller.cost import Args, main


def test_costs_are_kept_per_scale(tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    out.write_text(json.dumps({"mini": {"earlier": True}}))
    main(Args(scale=("tiny",), repeats=2, out=out))
    results = json.loads(out.read_text())
    assert results["mini"] == {"earlier": True}
    tiny = results["tiny"]
    names = {"snapshot, same", "undo, same", "snapshot, host", "undo, host"}
    assert set(tiny["in_updates"]) == names | {"update, measured"}
    assert all(cost["min"] > 0.0 for cost in tiny["in_updates"].values())
    # Weights, and AdamW's two moments of each.
    assert tiny["snapshot_bytes_per_byte_of_weights"] == pytest.approx(3.0, rel=1e-2)
