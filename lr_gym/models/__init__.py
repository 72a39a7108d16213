"""Language models: plain `torch.nn.Module`s, one file each."""

from __future__ import annotations

from typing import Any

from lr_gym.config import TrainingConfig
from lr_gym.models.conv import Conv
from lr_gym.models.gpt import GPT
from lr_gym.models.language_model import LanguageModel
from lr_gym.models.lstm import LSTM


def build_model(config: TrainingConfig, vocab_size: int) -> LanguageModel:
    """Return the model that `config` describes, before `initial_parameters`."""
    shape: dict[str, Any] = {"vocab_size": vocab_size} | {
        name: getattr(config, name) for name in ("n_layer", "n_embd", "dropout", "bias")
    }
    if config.architecture == "lstm":
        return LSTM(**shape)
    if config.architecture == "conv":
        return Conv(block_size=config.block_size, **shape)
    return GPT(block_size=config.block_size, n_head=config.n_head, **shape)
