"""The benchmark over model widths: its table, and small real runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.controller.widths import Args, main, table

SETTINGS = {"max_iters": 40, "eval_interval": 10, "n_layer": 1, "eval_tokens": 1024}


def test_the_controller_is_compared_with_the_best_peak_of_each_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "widths.json"
    args = Args(
        env="markov",
        widths=(32, 64),
        peaks=(1e-4, 1e-2, 1e3),  # the last peak diverges
        targets=(0.14, 0.014),
        starts=(0.1, 1.0),
        settings=json.dumps(SETTINGS),
        workers=1,
        jobs=tmp_path / "jobs",
        out=out,
    )
    main(args)
    result = json.loads(out.read_text())
    assert result["seeds"] == [5000, 5001]
    for entry, width in zip(result["widths"], args.widths, strict=True):
        assert entry["width"] == width
        losses = np.array(entry["final_val_loss"])
        assert losses.shape == (3, 2)
        assert entry["best_peak"] == 1e-2
        assert not entry["best_at_an_end"]
        assert entry["best_final_val_loss"] == pytest.approx(losses[1].mean())
        high, low = entry["controllers"]
        assert (high["target"], low["target"]) == (0.14, 0.014)
        for rule in (high, low):
            ours = np.array(rule["final_val_loss"])
            assert np.array(rule["above_best"]) == pytest.approx(
                ours - losses[1].mean()
            )
            rates = np.array(rule["highest_rate"])
            assert rates.shape == (2, 2)
            assert (
                rates < 0.1
            ).all()  # also from 1.0, since the controller starts lower
        reached = np.array(high["highest_rate"]) > np.array(low["highest_rate"])
        assert reached.all()
    paths = (tmp_path / "jobs").glob("*.json")
    records = [json.loads(path.read_text()) for path in paths]
    sizes = sorted((r["training"]["n_embd"], r["training"]["n_head"]) for r in records)
    assert sizes == [(32, 1)] * 3 + [(64, 2)] * 3
    assert capsys.readouterr().out.count("\n| ") == 3
    result["widths"][0]["best_at_an_end"] = True
    peaks = [row["best WSD peak LR"] for row in table(result)]
    assert peaks == ["0.01, the last one tried", "0.01"]

    with pytest.raises(SystemExit, match="multiples of 32, got 48"):
        main(Args(env="markov", widths=(48,), jobs=tmp_path / "jobs", out=out))
