"""Settings: presets as documented, every wrong value refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lr_gym import TrainingConfig, preset


def test_the_paper_preset_is_the_papers() -> None:
    shakespeare = preset("paper", "shakespeare")
    assert (shakespeare.n_layer, shakespeare.n_head, shakespeare.n_embd) == (6, 6, 384)
    assert (shakespeare.block_size, shakespeare.dropout) == (256, 0.2)
    assert (shakespeare.batch_size, shakespeare.max_iters) == (64, 5000)
    assert (shakespeare.eval_interval, shakespeare.warmup_iters) == (250, 100)
    assert (shakespeare.beta1, shakespeare.beta2) == (0.9, 0.99)
    assert (shakespeare.weight_decay, shakespeare.grad_clip) == (0.1, 1.0)
    assert shakespeare.learning_rate == 2e-3
    for corpus in ("enwik8", "text8"):
        wikipedia = preset("paper", corpus)
        assert (wikipedia.batch_size, wikipedia.max_iters) == (32, 100_000)
        assert (wikipedia.eval_interval, wikipedia.warmup_iters) == (1000, 200)
        assert wikipedia.learning_rate == 1e-3


@pytest.mark.parametrize("scale", ["paper", "mini", "tiny"])
def test_presets_label_themselves_and_have_twenty_decisions(scale: str) -> None:
    config = preset(scale)
    assert config.scale == scale
    assert config.max_iters / config.eval_interval == 20


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"corpus": 3}, TypeError, "corpus must be a string, got 3"),
    ({"test_fraction": 0.6}, ValueError, r"test_fraction .*\[0, 0.5\], got 0.6"),
    ({"test_fraction": "half"}, TypeError, "test_fraction must be a number"),
    ({"scale": "huge"}, ValueError, "scale must be one of paper, mini, tiny"),
    ({"architecture": "rnn"}, ValueError, "architecture must be one of gpt, lstm, c"),
    (
        {"architecture": "lstm", "compile": "default"},
        ValueError,
        "compile must be auto or off with architecture='lstm'",
    ),
    ({"n_layer": 0}, ValueError, "n_layer must be at least 1, got 0"),
    ({"n_layer": 2.0}, TypeError, "n_layer must be an integer, got 2.0"),
    ({"n_layer": True}, TypeError, "n_layer must be an integer, got True"),
    ({"n_head": -1}, ValueError, "n_head must be at least 1"),
    ({"n_embd": 130}, ValueError, "n_embd must be a multiple of n_head"),
    ({"block_size": 0}, ValueError, "block_size must be at least 1"),
    ({"batch_size": "12"}, TypeError, "batch_size must be an integer, got '12'"),
    ({"dropout": 1.0}, ValueError, r"dropout must be .* \[0, 1\), got 1.0"),
    ({"dropout": float("nan")}, ValueError, "dropout must be finite"),
    ({"bias": 1}, TypeError, "bias must be True or False"),
    ({"max_iters": 0}, ValueError, "max_iters must be at least 1"),
    ({"eval_interval": 0}, ValueError, "eval_interval must be at least 1"),
    ({"eval_interval": 601}, ValueError, "eval_interval must not exceed max_iters"),
    ({"warmup_iters": -1}, ValueError, "warmup_iters must be at least 0"),
    ({"warmup_iters": 601}, ValueError, "warmup_iters must not exceed max_iters"),
    ({"learning_rate": 0.0}, ValueError, r"learning_rate must be .* \(0, inf\)"),
    ({"learning_rate": float("inf")}, ValueError, "learning_rate must be finite"),
    ({"learning_rate": None}, TypeError, "learning_rate must be a number"),
    ({"beta1": 1.0}, ValueError, "beta1 must be"),
    ({"beta2": -0.1}, ValueError, "beta2 must be"),
    ({"weight_decay": -1}, ValueError, "weight_decay must be"),
    ({"grad_clip": -1}, ValueError, "grad_clip must be"),
    ({"evaluation": "exact"}, ValueError, "evaluation must be one of fixed, paper"),
    ({"eval_tokens": 0}, ValueError, "eval_tokens must be at least 1"),
    ({"eval_iters": 0}, ValueError, "eval_iters must be at least 1"),
    ({"precision": "float16"}, ValueError, "precision must be one of auto, float32"),
    ({"device": 0}, TypeError, "device must be a string"),
]


@pytest.mark.parametrize(("fields", "error", "message"), WRONG)
def test_a_wrong_field_is_refused_by_name(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TrainingConfig(**fields)


def test_only_a_gpt_has_heads() -> None:
    for architecture in ("lstm", "conv"):
        assert TrainingConfig(architecture=architecture, n_embd=130).n_embd == 130


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"'n_layers'; did you mean 'n_layer'"):
        preset("tiny", n_layers=2)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale must be one of .* got 'tin'; did you"):
        preset("tin")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().n_layer = 3  # type: ignore[misc]  # the mistake under test
