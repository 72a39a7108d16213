"""A simulated population on the loss law of `laws.py`."""

from __future__ import annotations

from typing import Any

from lr_gym import SurrogateTrainer
from tests.helpers.laws import make_law

NOISY = {
    "efficiency_spread": 0.05,
    "tolerance_spread": 0.3,
    "jitter": 0.2,
    "batch_noise": 0.5,
}


def make_trainer(size: int = 1, **constants: Any) -> SurrogateTrainer:
    """Return a trainer of `size` noisy runs, reset with the seeds 0, 1, ..."""
    trainer = SurrogateTrainer(make_law(**(NOISY | constants)), size)
    trainer.reset(range(size), range(size))
    return trainer
