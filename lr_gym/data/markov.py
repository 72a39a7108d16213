"""The built-in corpus: a synthetic source with an exactly known entropy rate.

The source is a variable-order Markov chain over 32 symbols. The *rank* of the next
symbol is drawn from the same Zipf law in every context. The context determines a
permutation that assigns symbols to ranks. So the entropy rate is the entropy of the
Zipf law, and no model's expected loss is below it.

A context is the last 1, 2 or 3 symbols, depending on the last symbol. The permutation
of a longer context differs from that of the shorter one by a few transpositions. So a
model learns gradually: first frequencies, then pairs, then longer patterns.

Sampling uses only integers and numpy's raw PCG64 stream, which are the same on every
platform and in every version. The result is checked against its hash.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

MARKOV_VOCABULARY = tuple("\n ',.;abcdefghijklmnopqrstuvwxyz")  # by code point
MARKOV_LENGTH = 2**19
MARKOV_SHA256 = "70ed909efa571ae92af8669eba99c68d54df19e116dcab65104f1d2621de0c5e"

_SIZE = len(MARKOV_VOCABULARY)
_SEED = 2024
# Zipf's law with exponent 2, in integers: p(rank) is proportional to (rank + 1)^-2.
_WEIGHTS = [2**31 // (rank + 1) ** 2 for rank in range(_SIZE)]
# Transpositions by which a context of 1, 2, 3 symbols differs from the shorter one.
# Each swaps one of the `_N_LIKELY` likeliest symbols with any other. Chosen here,
# because the conditional entropy then falls in clear steps with the order.
_SWAPS = (4, 3, 3)
_N_LIKELY = 3
# Context length by last symbol: a third of the symbols have each length.
_ORDER = np.arange(_SIZE) % 3 + 1

MARKOV_ENTROPY_RATE: float = -sum(
    w / sum(_WEIGHTS) * math.log(w / sum(_WEIGHTS)) for w in _WEIGHTS
)  # nats per character


def generate_markov() -> NDArray[np.uint8]:
    """Return the corpus: token ids, uint8 of shape (`MARKOV_LENGTH`,).

    Raises:
        RuntimeError: The tokens' hash is wrong on this machine.
    """
    stream = np.random.PCG64(_SEED)
    table = _successors(stream)
    ranks = _draw_ranks(stream, MARKOV_LENGTH)
    # `context` holds the last three symbols, 5 bits each.
    tokens = bytearray(MARKOV_LENGTH)
    context = 0
    for position, rank in enumerate(ranks):
        symbol = table[context << 5 | rank]
        tokens[position] = symbol
        context = (context << 5 | symbol) & 0x7FFF
    digest = hashlib.sha256(tokens).hexdigest()
    if digest != MARKOV_SHA256:
        raise RuntimeError(
            f"the markov corpus differs on this machine: SHA-256 {digest}, expected "
            f"{MARKOV_SHA256}; please report this with your numpy version"
        )
    return np.frombuffer(bytes(tokens), dtype=np.uint8)


def _draw_ranks(stream: np.random.PCG64, count: int) -> list[int]:
    """Draw `count` ranks from the Zipf law, in integer arithmetic."""
    edges = np.cumsum(np.array(_WEIGHTS, dtype=np.uint64))
    draws = _draw_below(stream, count, int(edges[-1]))
    ranks: list[int] = np.searchsorted(edges, draws, side="right").tolist()
    return ranks


def _draw_below(stream: np.random.PCG64, count: int, bound: int) -> NDArray[np.uint64]:
    """Draw `count` integers in [0, `bound`), bound < 2**32, by multiply and shift."""
    bits = np.asarray(stream.random_raw(count), dtype=np.uint64) >> np.uint64(32)
    return np.asarray(bits * np.uint64(bound) >> np.uint64(32), dtype=np.uint64)


def _successors(stream: np.random.PCG64) -> bytes:
    """Return the table of next symbols.

    Its index is (third last, second last, last symbol, rank), 5 bits each.
    """
    # Start with no context: the rank is the symbol.
    table: NDArray[np.uint8] = np.arange(_SIZE, dtype=np.uint8).reshape(1, 1, 1, _SIZE)
    for order, swaps in enumerate(_SWAPS, start=1):
        # Add one symbol of context: copy the permutation of the shorter context ...
        shape = tuple(_SIZE if axis >= 3 - order else 1 for axis in range(3))
        permutations = np.broadcast_to(table, (*shape, _SIZE)).reshape(-1, _SIZE).copy()
        # ... and change it if the last symbol has a context of at least this order.
        last = np.broadcast_to(np.arange(_SIZE), shape).reshape(-1)
        changed = np.flatnonzero(_ORDER[last] >= order)
        for _ in range(swaps):
            first = _draw_below(stream, len(changed), _N_LIKELY).astype(np.intp)
            second = _draw_below(stream, len(changed), _SIZE).astype(np.intp)
            likely_symbol = permutations[changed, first]
            permutations[changed, first] = permutations[changed, second]
            permutations[changed, second] = likely_symbol
        table = permutations.reshape(*shape, _SIZE)
    return table.tobytes()
