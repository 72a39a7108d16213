"""One chunk of simulated training: the runs' dynamics, and the measurements.

Pure functions of a `LossLaw`'s constants and of arrays over R runs, (R,).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lr_gym.hashing import UInt64Array, normal, second_normal
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

_MAX_LOG = 600.0  # of an expected norm: its exponential is finite


def segments(
    counts: NDArray[np.int64], rates: FloatArray
) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    """Cut a chunk into segments of one learning rate per run.

    Args:
        counts: Updates of each run, (R,).
        rates: Constant learning rates, (R,): one segment. Or one per update, (R, n): a
            segment is `SEGMENT` updates at their mean learning rate. Then `counts`
            must not increase from run to run, and rates are 0 beyond a run's count.

    Yields:
        Updates and learning rates, (A,) each, of the first A runs: those that have not
        made all their updates.
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
    for segment in range(len(starts)):
        active = np.count_nonzero(lengths[:, segment])
        yield lengths[:active, segment], means[:active, segment]


def update_prefix(old: FloatArray, new: FloatArray) -> FloatArray:
    """Return `old`, (R,), with its first entries replaced by `new`."""
    if len(new) == len(old):
        return new
    return np.concatenate([new, old[len(new) :]])


def train_segment(
    law: LawConstants,
    members: RunParams,
    state: State,
    loss: FloatArray,
    rate: FloatArray,
    lengths: NDArray[np.int64],
) -> tuple[State, FloatArray, FloatArray, FloatArray]:
    """Simulate updates at a constant learning rate.

    Args:
        law: The constants.
        members: What differs between the runs.
        state: Before the segment; not changed.
        loss: Validation loss before the segment, (R,).
        rate: Learning rate of all its updates, (R,).
        lengths: Number of updates, (R,).

    Returns:
        The state after it, ln of the learning rate, the validation loss, and the mean
        training loss, the last three of shape (R,).
    """
    log_rate = np.log(np.maximum(rate, LOWEST_RATE))
    state = advance(law, members, state, rate, lengths)
    loss_after = validation_loss(law, state, log_rate)
    # Once the first chunk is over, the loss falls almost linearly within a segment.
    train_loss = 0.5 * (loss + loss_after)
    if law.gap_scale > 0.0:
        train_loss = train_loss - generalization_gap(law, state)
    return state, log_rate, loss_after, train_loss


def add_evaluation_noise(
    law: LawConstants, loss: FloatArray, log_rate: FloatArray, bits: UInt64Array
) -> FloatArray:
    """Return validation losses with the noise of an evaluation, drawn by `bits`."""
    jitter = law.jitter * np.exp(law.jitter_exponent * log_rate)
    return np.maximum(loss + jitter * normal(bits), 0.0)


def add_batch_noise(
    law: LawConstants, mean: FloatArray, updates: NDArray[np.int64], bits: UInt64Array
) -> FloatArray:
    """Return mean training losses with the noise of the batches, drawn by `bits`."""
    noise = law.batch_noise / np.sqrt(updates) * second_normal(bits)
    return np.maximum(mean + noise, 0.0)


def expected_norms(
    law: LawConstants, state: State, log_rate: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the gradient norm and the update size that the law expects, (R,) each."""
    a, b, c, d = law.grad_norm
    progress = np.log(state["progress"] + law.progress_scale)
    log_norm = a + b * log_rate + c * progress - d * state["damage"]
    a, b, c = law.update_size
    undamaged = np.log(state["undamaged"] + law.progress_scale)
    log_size = a + b * log_rate + c * undamaged
    return (
        np.exp(np.minimum(log_norm, _MAX_LOG)),
        np.exp(np.minimum(log_size, _MAX_LOG)),
    )
