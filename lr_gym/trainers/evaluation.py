"""Losses of a population on a split: all of it, evenly spread windows, or batches.

Shapes: E members, B batch, T time, N windows, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lr_gym.config import TrainingConfig
from lr_gym.data.corpora import TEST_FRACTION
from lr_gym.random_streams import fold_in
from lr_gym.trainers.base import FloatArray
from lr_gym.trainers.batches import IGNORE, cut_windows, sample_starts, windows_at
from lr_gym.trainers.loss import Losses, PopulationLoss
from lr_gym.validation import check_choice


class Evaluation:
    """Evaluates any members of a population; training is not affected."""

    def __init__(
        self,
        config: TrainingConfig,
        splits: Mapping[str, Tensor],
        population_loss: PopulationLoss,
        compiled_losses: Losses | None,
    ) -> None:
        """Keep what evaluations share.

        Args:
            config: Kind and length of an evaluation.
            splits: Token numbers of each split, by name, on the device.
            population_loss: The loss of the members' models.
            compiled_losses: The compiled form of `population_loss.losses`, if any.
        """
        self._config = config
        self._splits = splits
        self._population_loss = population_loss
        self.compiled_losses = compiled_losses
        self._windows_cache: dict[tuple[str, bool], tuple[Tensor, int]] = {}

    def __call__(
        self, state: Mapping[str, Tensor], split: str, *, exact: bool
    ) -> FloatArray:
        """Return the loss of the members with `state` on `split`, (E,).

        Raises:
            ValueError: `split` is unknown, or too short.
        """
        check_choice("split", split, self._splits)
        if len(self._splits[split]) < 2:
            fraction = self._config.test_fraction
            fraction = TEST_FRACTION if fraction is None else fraction
            raise ValueError(
                f"split {split!r} has {len(self._splits[split])} characters and needs "
                "at least 2: pass a longer text or a larger test_fraction (it is "
                f"{fraction})"
            )
        if self._config.evaluation == "paper" and not exact:
            return self._random_batch_loss(state, split)
        windows, predictions = self.windows(split, exact)  # (N, T + 1)
        total = self._population_loss.total_loss(
            state["parameters"], windows, self.compiled_losses
        )
        return np.asarray(total.cpu() / predictions)

    def windows(self, split: str, exact: bool) -> tuple[Tensor, int]:
        """Return the windows of a fixed evaluation, and the number of predictions."""
        if (split, exact) not in self._windows_cache:
            limit = None if exact else self._config.eval_tokens
            windows = cut_windows(self._splits[split], self._config.block_size, limit)
            predictions = int((windows[:, 1:] != IGNORE).sum())
            self._windows_cache[split, exact] = windows, predictions
        return self._windows_cache[split, exact]

    def _random_batch_loss(self, state: Mapping[str, Tensor], split: str) -> FloatArray:
        """Return the paper's estimate: the mean loss over `eval_iters` random batches.

        The batches have their own random stream, so training is not affected.
        """
        config, tokens = self._config, self._splits[split]
        if len(tokens) <= config.block_size:
            raise ValueError(
                f"evaluation='paper' needs a {split} split longer than block_size="
                f"{config.block_size}, got {len(tokens)} characters; pass a longer "
                "text, a smaller block_size or evaluation='fixed'"
            )
        key = fold_in(state["data_key"] + 1, state["iteration"])  # (E,)
        total = torch.zeros(len(key), dtype=torch.float64, device=tokens.device)
        pass_tokens = config.batch_size * config.block_size  # per member
        for batch in range(config.eval_iters):
            starts = sample_starts(
                tokens, fold_in(key, batch), config.batch_size, config.block_size
            )
            windows = windows_at(tokens, starts, config.block_size)
            for group in self._population_loss.groups(
                len(key), pass_tokens, tokens.device
            ):
                losses = self._population_loss.losses(
                    state["parameters"][group], windows[group], "mean"
                )
                total[group] += losses.double()
        return np.asarray(total.cpu() / config.eval_iters)
