"""One chunk of simulated training: what a run goes through, and what is measured.

Pure functions of a `LossLaw`'s constants and numbers, for arrays of runs and for one
run in floats alike; see `arithmetic.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lr_gym.arithmetic import Arithmetic, Value, normal, second_normal
from lr_gym.surrogate.law import (
    LOWEST_RATE,
    SEGMENT,
    FloatArray,
    LawConstants,
    RunParams,
    State,
    advance,
    generalization_gap,
    validation_loss,
)


def segments(
    counts: NDArray[np.int64], rates: FloatArray
) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    """Yield updates and their rate, of the first so many members, in their order.

    One segment for constant rates, (R,). Of (R, n), `SEGMENT` updates at a time at
    their mean rate; counts fall from the first member to the last, and rates are 0
    beyond a member's count.
    """
    if rates.ndim == 1:
        yield counts, rates
        return
    starts = np.arange(0, counts[0], SEGMENT)
    lengths = np.minimum(np.maximum(counts[:, None] - starts, 0), SEGMENT)
    padded = np.zeros((len(counts), len(starts) * SEGMENT))
    rates = rates[:, : padded.shape[1]]
    padded[:, : rates.shape[1]] = rates
    sums = padded.reshape(*lengths.shape, SEGMENT).sum(axis=2)
    means = sums / np.maximum(lengths, 1)
    for place in range(len(starts)):
        active = np.count_nonzero(lengths[:, place])
        yield lengths[:active, place], means[:active, place]


def update_prefix(old: FloatArray, new: FloatArray) -> FloatArray:
    """Return (R,) values: `new`, then those of `old` whom a segment left out."""
    if len(new) == len(old):
        return new
    return np.concatenate([new, old[len(new) :]])


def train_segment(
    law: LawConstants,
    members: RunParams,
    state: State,
    loss: Value,
    rate: Value,
    lengths: Value,
    of: Arithmetic,
) -> tuple[State, Value, Value, Value]:
    """Return state, ln of the rate, loss and mean training loss after some updates.

    Args:
        law: The constants.
        members: What differs between the runs.
        state: Before; not changed.
        loss: Of validation, before.
        rate: The learning rate of all the updates.
        lengths: How many updates.
        of: What all these are.
    """
    log_rate = of.log(of.maximum(rate, LOWEST_RATE))
    after = advance(law, members, state, rate, lengths, of)
    found = validation_loss(law, after, log_rate, of)
    # Half way: a loss falls almost linearly once the first chunk is over.
    middle = 0.5 * (loss + found)
    if law.gap_scale > 0.0:
        middle = middle - generalization_gap(law, after, of)
    return after, log_rate, found, middle


def evaluated(
    law: LawConstants, loss: Value, log_rate: Value, bits: Value, of: Arithmetic
) -> Value:
    """Return validation losses with the noise of an evaluation, drawn by `bits`."""
    jitter = law.jitter * of.exp(law.jitter_exponent * log_rate)
    return of.maximum(loss + jitter * normal(bits, of), 0.0)


def mean_of_batches(
    law: LawConstants, mean: Value, updates: Value, bits: Value, of: Arithmetic
) -> Value:
    """Return mean training losses with the noise of the batches, drawn by `bits`."""
    noise = law.batch_noise / of.sqrt(updates) * second_normal(bits, of)
    return of.maximum(mean + noise, 0.0)


def norms(
    law: LawConstants, state: State, log_rate: Value, of: Arithmetic
) -> tuple[Value, Value]:
    """Return the gradient norm and the update size that the law's models expect."""
    a, b, c, d = law.grad_norm
    progress = of.log(state["progress"] + law.progress_scale)
    norm = of.exp(a + b * log_rate + c * progress - d * state["damage"])
    a, b, c = law.update_size
    undamaged = of.log(state["undamaged"] + law.progress_scale)
    return norm, of.exp(a + b * log_rate + c * undamaged)
