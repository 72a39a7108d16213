"""Evaluation: the whole split, evenly spread windows, or the paper's estimate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lr_gym
from lr_gym import PopulationTrainer
from tests.helpers.small import small_trainer, trainer_on


def brute_force(trainer: PopulationTrainer, tokens: NDArray[np.integer]) -> float:
    """Loss over `tokens` window by window, from the public model alone."""
    model, block = trainer.model(0), trainer.config.block_size
    total = 0.0
    for start in range(0, len(tokens) - 1, block):
        piece = torch.from_numpy(tokens[start : start + block + 1].astype(np.int64))
        logits = model(piece[None, :-1])[0].log_softmax(-1)
        total -= logits.gather(1, piece[1:, None]).sum().item()
    return total / (len(tokens) - 1)


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 120))
def test_an_exact_evaluation_predicts_every_character_once(length: int) -> None:
    tokens = lr_gym.load_corpus("markov").val[:length].copy()
    trainer = trainer_on(tokens, eval_tokens=None)
    trainer.reset([0], [0])
    trainer.train(5, [1e-2])
    assert trainer.evaluate()[0] == pytest.approx(
        brute_force(trainer, tokens), rel=1e-5
    )


def test_a_limited_evaluation_is_spread_over_the_split() -> None:
    tokens = lr_gym.load_corpus("markov").val[: 16 * 100 + 1].copy()
    trainer = trainer_on(tokens, eval_tokens=160)  # 10 of 100 windows
    trainer.reset([0], [0])
    windows = [tokens[16 * w : 16 * w + 17] for w in range(0, 100, 10)]
    expected = np.mean([brute_force(trainer, window) for window in windows])
    assert trainer.evaluate()[0] == pytest.approx(expected, rel=1e-5)
    exact = trainer.evaluate(exact=True)[0]
    assert exact == pytest.approx(brute_force(trainer, tokens), rel=1e-5)


def test_the_papers_estimate_is_near_the_exact_loss() -> None:
    trainer = small_trainer(evaluation="paper", eval_iters=100, block_size=16)
    trainer.reset([0], [0])
    trainer.train(20, [1e-2])
    exact = trainer.evaluate(exact=True)[0]
    assert trainer.evaluate()[0] == pytest.approx(exact, abs=0.1)
