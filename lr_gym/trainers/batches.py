"""Windows of a text: drawn at random for training, cut in order for evaluation.

Shapes: E members, B batch, T time (`block_size`), N windows. A window holds T + 1
characters: all but the last are inputs, all but the first are targets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from lr_gym.random_streams import random_integers

IGNORE = -1  # target of a padded position


def sample_starts(
    tokens: Tensor, keys: Tensor, batch_size: int, block_size: int
) -> Tensor:
    """Draw where a batch of windows starts, for every key.

    Args:
        tokens: The split, (n,), n > `block_size`.
        keys: Stream keys, int64, any shape.
        batch_size: B.
        block_size: T.

    Returns:
        int64, (*keys.shape, B); each row depends on its own key alone.
    """
    return random_integers(keys, batch_size, len(tokens) - block_size)


def windows_at(tokens: Tensor, starts: Tensor, block_size: int) -> Tensor:
    """Return the windows at `starts`, int64, (*starts.shape, T + 1): one gather."""
    offsets = torch.arange(block_size + 1, device=tokens.device)
    return tokens[starts[..., None] + offsets].long()


def cut_windows(tokens: Tensor, block_size: int, limit: int | None) -> Tensor:
    """Cut `tokens` into non-overlapping windows, (N, T + 1) int64, padded with IGNORE.

    Consecutive windows share one character, so every character but the first is
    predicted exactly once. With a `limit` on predictions, evenly spread windows remain.
    """
    predictions = len(tokens) - 1
    block_size = min(block_size, predictions)
    count = -(-predictions // block_size)
    padded = torch.full((count * block_size + 1,), IGNORE, device=tokens.device)
    padded[: len(tokens)] = tokens.long()
    windows = padded.unfold(0, block_size + 1, block_size)
    if limit is None or limit >= predictions:
        return windows
    kept = max(1, limit // block_size)
    full = predictions // block_size
    return windows[torch.arange(kept, device=tokens.device) * full // kept]


def even_parts(windows: Tensor, most: int) -> tuple[Tensor, ...]:
    """Cut `windows` (N, T + 1) into parts of one size, at most `most` windows each.

    The last is filled up with windows of which nothing is predicted.
    """
    count = -(-len(windows) // most)
    size = -(-len(windows) // count)
    filled = F.pad(windows, (0, 0, 0, count * size - len(windows)), value=IGNORE)
    return torch.split(filled, size)
