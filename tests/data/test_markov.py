"""The markov corpus: the same on every machine, with the stated entropy rate."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from numpy.typing import NDArray

import lr_gym.data.markov
from lr_gym import load_corpus
from lr_gym.data.markov import (
    MARKOV_ENTROPY_RATE,
    MARKOV_LENGTH,
    MARKOV_SHA256,
    MARKOV_VOCABULARY,
    generate_markov,
)


def conditional_entropy(tokens: NDArray[np.int64], k: int) -> float:
    """Empirical entropy of a symbol given the k before it, nats."""
    count = len(tokens) - k
    context: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
    for offset in range(k):
        context = context * 32 + tokens[offset : offset + count]

    def entropy(codes: NDArray[np.int64]) -> float:
        shares = np.bincount(codes)[np.unique(codes)] / count
        return float(-(shares * np.log(shares)).sum())

    return entropy(context * 32 + tokens[k:]) - entropy(context)


def test_the_tokens_have_the_published_hash() -> None:
    state = str(np.random.get_state())  # noqa: NPY002 - the global one
    tokens = generate_markov()
    assert state == str(np.random.get_state())  # noqa: NPY002
    assert tokens.shape == (MARKOV_LENGTH,)
    assert hashlib.sha256(tokens.tobytes()).hexdigest() == MARKOV_SHA256
    assert len(MARKOV_VOCABULARY) == 32
    assert list(MARKOV_VOCABULARY) == sorted(set(MARKOV_VOCABULARY))


def test_other_tokens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lr_gym.data.markov, "MARKOV_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="the markov corpus differs"):
        generate_markov()


def test_the_entropy_rate_is_that_of_the_source_itself() -> None:
    # The source's own predictions, from its table: no model can do better.
    tokens = generate_markov().astype(np.int64)
    stream = np.random.PCG64(2024)
    table = np.frombuffer(lr_gym.data.markov._successors(stream), dtype=np.uint8)
    ranks = np.argsort(table.reshape(-1, 32), axis=1)  # (context, symbol) -> rank
    context = (tokens[:-3] * 32 + tokens[1:-2]) * 32 + tokens[2:-1]
    seen = ranks[context, tokens[3:]]
    weights = np.array(lr_gym.data.markov._WEIGHTS, dtype=float)
    log_p = np.log(weights / weights.sum())
    surprise = -log_p[seen]
    error = surprise.std() / math.sqrt(len(surprise))
    assert abs(surprise.mean() - MARKOV_ENTROPY_RATE) < 4 * error
    assert pytest.approx(-(np.exp(log_p) * log_p).sum()) == MARKOV_ENTROPY_RATE


def test_longer_contexts_help_in_clear_steps() -> None:
    tokens = generate_markov().astype(np.int64)
    steps = [math.log(32), *(conditional_entropy(tokens, k) for k in range(3))]
    assert np.all(np.diff(steps) < -0.2)
    assert steps[-1] > MARKOV_ENTROPY_RATE + 0.1


def test_the_corpus_has_readable_text_and_its_entropy_rate() -> None:
    corpus = load_corpus("markov")
    assert corpus.entropy_rate == MARKOV_ENTROPY_RATE
    assert set(corpus.decode(corpus.val[:1000])) <= set(MARKOV_VOCABULARY)
