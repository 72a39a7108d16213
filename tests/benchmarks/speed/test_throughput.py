"""The throughput benchmark: a correct baseline, paired times, complete results."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed.costs import Stopwatch, plain_episode
from benchmarks.speed.plain_loop import PlainGPT, PlainLoop
from benchmarks.speed.throughput import main, parse
from benchmarks.speed.timing import (
    Variant,
    flops_per_token,
    matmul_parameters,
    paired_speed,
    spread,
    summarize,
    take_turns,
)
from lr_gym import load_corpus
from tests.helpers.small import small_config, small_trainer

CPU = torch.device("cpu")


def numbers(value: object) -> list[float]:
    """Return every number within a JSON value."""
    if isinstance(value, dict):
        return [n for part in value.values() for n in numbers(part)]
    if isinstance(value, list):
        return [n for part in value for n in numbers(part)]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [float(value)] if is_number else []  # type: ignore[arg-type]  # just checked


# ------------------------------------------------------------------------ the baseline


def test_the_plain_model_is_ours() -> None:
    config = small_config(n_layer=2, bias=True)
    ours = small_trainer(n_layer=2, bias=True).model(0)
    plain = PlainGPT(config, 32)
    pairs = list(zip(plain.parameters(), ours.parameters(), strict=True))
    for weight, our_weight in pairs:
        weight.data = our_weight.data.clone().normal_(std=0.3)
        our_weight.data = weight.data
    tokens = torch.randint(32, (3, 17))
    logits = ours(tokens[:, :-1]).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    loss = plain(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(loss, expected)
    assert loss > 2.0


def test_the_plain_loop_trains_with_the_learning_rate(tmp_path: Path) -> None:
    loop = PlainLoop(small_config(dropout=0.1), load_corpus("markov"), tmp_path)
    inputs, targets = loop.batch("val")
    assert inputs.shape == (4, 16)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    before = loop.evaluate(20)
    weights = [p.detach().clone() for p in loop.model.parameters()]
    loop.train(1, 0.0)
    after = loop.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    loop.train(30, 1e-2)
    assert {group["lr"] for group in loop.optimizer.param_groups} == {1e-2}
    assert before["train"] == pytest.approx(math.log(32), abs=0.05)
    assert all(loop.evaluate(20)[split] < before[split] - 0.2 for split in before)


def test_a_part_of_an_episode_is_scaled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(max_iters=8, eval_interval=3)
    loop = PlainLoop(config, load_corpus("markov"), tmp_path)
    calls: list[tuple[str, int]] = []
    # One hundredth of a second per iteration, two per evaluation.
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(loop, "train", lambda n, rate: calls.append(("train", n)))
    monkeypatch.setattr(loop, "evaluate", lambda n: calls.append(("evaluate", n)))
    whole = plain_episode(loop, 3, batches=5, part=None)
    assert [n for name, n in calls if name == "train"] == [3, 3, 2, 0]
    assert calls.count(("evaluate", 5)) == whole["evaluations"] == 4
    assert (whole["seconds"], whole["extrapolated"]) == (8, False)
    part = plain_episode(loop, 3, batches=5, part=2)
    assert (part["training_seconds"], part["evaluation_seconds"]) == (8 / 2, 4)
    assert part["extrapolated"]


# ----------------------------------------------------------------------- the arithmetic


def test_flops_by_hand() -> None:
    config = small_config(n_layer=1, n_embd=16, block_size=16)
    # qkv 16 x 48, proj 16 x 16, up 16 x 64, down 64 x 16, head 16 x 32
    assert matmul_parameters(config, 32) == 768 + 256 + 1024 + 1024 + 512
    # Scores and their sums: 2 x 16 multiply-adds for each of 16 positions, thrice.
    assert flops_per_token(config, 32) == 6 * 3584 + 3 * 2 * (2 * 16 * 16)
    # Two matrices of 16 x 64, and the head.
    lstm = replace(config, architecture="lstm")
    assert flops_per_token(lstm, 32) == 6 * (2 * 1024 + 512)
    # Eight taps of 16 x 32, proj, and the head.
    conv = replace(config, architecture="conv")
    assert flops_per_token(conv, 32) == 6 * (8 * 512 + 256 + 512)


def fake(name: str, seconds: list[float], tokens: int = 100) -> Variant:
    config = small_config()
    fields: dict[str, Any] = {"config": config, "vocab_size": 32, "tokens": tokens}
    variant = Variant(name, 1, precision="float32", run=lambda: name, **fields)
    variant.seconds = seconds
    variant.reference = "a"
    return variant


def test_ratios_are_taken_within_a_round() -> None:
    a, b = fake("a", [1.0, 4.0, 2.0]), fake("b", [1.0, 2.0, 4.0], tokens=200)
    assert paired_speed(b, a) == {"median": 2.0, "min": 1.0, "max": 4.0}
    table = summarize([a, b], {"float32": 1e9})
    assert table["b"]["ratio"]["median"] == 2.0
    assert table["b"]["tokens_per_second"] == spread([200.0, 100.0, 50.0])
    flops = 100.0 * flops_per_token(small_config(), 32)
    assert table["b"]["utilization"] == pytest.approx(flops / 1e9)


def test_variants_take_turns_until_the_limit() -> None:
    order: list[str] = []
    pair = [fake("a", []), fake("b", [])]
    for variant in pair:
        variant.run = partial(order.append, variant.name)
    take_turns(pair, 2, CPU)
    assert order == ["a", "b", "a", "b"]
    assert [len(v.seconds) for v in pair] == [2, 2]
    take_turns(pair, 2, CPU, limit_seconds=-1.0)
    assert len(order) == 4


def test_a_stopwatch_changes_nothing_else() -> None:
    trainer = small_trainer()
    watch = Stopwatch(trainer, ("train",))
    assert trainer.train(1, [1e-3]).shape == (1,)
    trained = watch.seconds
    assert trained > 0
    trainer.evaluate()
    assert watch.seconds == trained


# ------------------------------------------------------------------------- the programs


@pytest.mark.slow
def test_a_quick_run_writes_every_section_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--scale",
        "tiny",
        "--quick",
        "--step-size",
        "1",
        "--out",
        str(tmp_path),
    ]
    path = main(parse(arguments))
    assert path == tmp_path / "cpu-tiny.json"
    content = json.loads(path.read_text())
    training = content["training"]
    for name in ("plain", "plain x 2, in sequence", "population 1", "population 2"):
        assert training[name]["ratio"]["min"] > 0
        assert len(training[name]["slice_seconds"]) == 2
    for name in ("steps 1, SubprocVecEnv", "steps 1, make_vec"):
        assert training[name]["reference"] == "steps 1, SubprocVecEnv"
    sections = ("evaluation", "snapshots", "memory", "episode", "linear", "widths")
    for name in (*sections, "provenance"):
        assert all(map(math.isfinite, numbers(content[name])))
    assert 0 < content["episode"]["gym"]["overhead_share"] < 0.5
    assert content["episode"]["gym"]["decisions"] == 4
    assert content["episode"]["extrapolated"]
    assert content["evaluation"]["random_val_sd"] > 0
    alone, together = content["snapshots"]
    assert alone["bytes_per_member"] == together["bytes_per_member"] > 12 * 100_000
    assert content["settings"]["quick"]
    shown = capsys.readouterr().out
    assert "| plain x 2, in sequence | 2 |" in shown
    assert "| snapshot / restore of 2, ms |" in shown


def test_an_unknown_device_is_an_error_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(parse(["--device", "absent"]))
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: device must be")


@pytest.mark.parametrize(
    "arguments", [["--repeats", "1"], ["--sizes", "0"], ["--scale", "huge"]]
)
def test_wrong_arguments(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err
