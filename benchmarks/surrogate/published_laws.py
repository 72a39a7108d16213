"""Two published laws of the loss curve, for comparison with ours.

Both predict the validation loss from the learning rates of all iterations. They were
published for schedules with one peak. Here they are fitted to runs with many peaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lr_gym.surrogate.runs import RecordedRun
from lr_gym.trainers.base import FloatArray

MOMENTUM_DECAY = 0.999  # lambda of Tissue et al. 2024, a constant there
BLOCK = 10  # iterations with one averaged learning rate, in the sum over decays


def tissue(parameters: FloatArray, rates: FloatArray) -> FloatArray:
    """Tissue, Wang and Wang 2024 (arXiv 2408.11029), equation 1.

    L(s) = L0 + A S1(s)^-alpha - C S2(s), where S1 is the sum of the rates and S2 the
    sum of m_i = lambda m_{i-1} + (eta_{i-1} - eta_i).

    Args:
        parameters: L0, ln A, alpha, ln C.
        rates: (R, n).

    Returns:
        Losses after every iteration, (R, n).
    """
    floor, amplitude, exponent, annealing = parameters
    forward = np.cumsum(rates, axis=1)
    falls = -np.diff(rates, axis=1, prepend=rates[:, :1])
    momentum = np.zeros_like(rates)
    running = np.zeros(len(rates))
    for i in range(rates.shape[1]):
        running = MOMENTUM_DECAY * running + falls[:, i]
        momentum[:, i] = running
    return np.asarray(
        floor
        + np.exp(amplitude) * forward**-exponent
        - np.exp(annealing) * np.cumsum(momentum, axis=1)
    )


def multi_power(parameters: FloatArray, rates: FloatArray) -> FloatArray:
    """Luo et al. 2025 (arXiv 2503.12811), equations 1 to 3: the multi-power law.

    L(t) = L0 + A (S1(t) + SW)^-alpha - B sum_k (eta_{k-1} - eta_k)
           (1 - (1 + C eta_k^-gamma S_k(t))^-beta),
    S_k the sum of rates from iteration k on. SW, the area under their warm-up, is 0:
    our warm-up is among the rates. Rises of the rate count as negative falls.

    Args:
        parameters: L0, ln A, alpha, ln B, ln C, beta, gamma.
        rates: (R, n); averaged over `BLOCK` iterations.

    Returns:
        Losses after every block, (R, n / BLOCK).
    """
    floor, amplitude, alpha, scale, speed, beta, gamma = parameters
    runs, length = rates.shape
    blocks = rates.reshape(runs, length // BLOCK, BLOCK).mean(axis=2)
    blocks = np.maximum(blocks, 1e-9)
    area = np.cumsum(blocks, axis=1) * BLOCK
    falls = -np.diff(blocks, axis=1, prepend=blocks[:, :1])
    gain = np.zeros_like(blocks)
    for k in range(1, blocks.shape[1]):
        since = area[:, k:] - area[:, k - 1 : k]
        pace = np.exp(speed) * blocks[:, k : k + 1] ** -gamma
        gain[:, k:] += falls[:, k : k + 1] * (1.0 - (1.0 + pace * since) ** -beta)
    body = np.exp(amplitude) * area**-alpha
    return np.asarray(floor + body - np.exp(scale) * gain)


@dataclass(frozen=True)
class PublishedLaw:
    """A law, and how it is fitted.

    Attributes:
        name: As in the tables.
        predict: Maps parameters and learning rates, (R, n), to losses.
        start: Initial parameters of the fit.
        low: Lower bounds of the parameters.
        high: Upper bounds of the parameters.
        block: Iterations per column of the predicted losses.
    """

    name: str
    predict: Callable[[FloatArray, FloatArray], FloatArray]
    start: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    block: int

    def fit(self, runs: Sequence[RecordedRun]) -> FloatArray:
        """Return the parameters that fit the runs, by robust least squares."""
        from scipy.optimize import least_squares

        losses = np.stack([run.val_loss for run in runs])[:, 1:]
        usable = np.isfinite(losses)

        def residuals(parameters: FloatArray) -> FloatArray:
            return np.where(usable, self.losses(parameters, runs) - losses, 0.0).ravel()

        solution = least_squares(
            residuals,
            self.start,
            bounds=(self.low, self.high),
            loss="soft_l1",
            f_scale=0.03,
            max_nfev=80,
        )
        return np.asarray(solution.x)

    def losses(self, parameters: FloatArray, runs: Sequence[RecordedRun]) -> FloatArray:
        """Return the losses at all evaluations but the first, (R, m - 1)."""
        rates = np.stack([run.rates for run in runs])
        columns = np.asarray(runs[0].iterations[1:]) // self.block - 1
        return self.predict(parameters, rates)[:, columns]


TISSUE = PublishedLaw(
    name="Tissue et al. 2024",
    predict=tissue,
    start=(1.5, -1.0, 0.3, 0.0),
    low=(0.0, -8.0, 0.02, -12.0),
    high=(4.0, 4.0, 2.0, 8.0),
    block=1,
)
MULTI_POWER = PublishedLaw(
    name="multi-power law, Luo et al. 2025",
    predict=multi_power,
    start=(1.5, -1.0, 0.3, 3.0, 0.5, 0.5, 0.5),
    low=(0.0, -8.0, 0.02, -4.0, -6.0, 0.05, 0.0),
    high=(4.0, 4.0, 2.0, 8.0, 6.0, 3.0, 2.0),
    block=BLOCK,
)
