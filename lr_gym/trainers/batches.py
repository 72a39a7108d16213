"""Windows of a text: random ones for training, consecutive ones for evaluation.

Shapes: E members, B batch, T time (`block_size`), N windows. A window holds T + 1
characters: all but the last are inputs, all but the first are targets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from lr_gym.random_streams import random_integers

IGNORE = -1  # padding: as a target it has no loss


def sample_starts(
    tokens: Tensor, keys: Tensor, batch_size: int, block_size: int
) -> Tensor:
    """Draw the start of every window of a batch, one batch per key.

    Args:
        tokens: The split, (n,), n > `block_size`.
        keys: Stream keys, int64, any shape.
        batch_size: B.
        block_size: T.

    Returns:
        int64, (*keys.shape, B); each batch depends on its key only.
    """
    return random_integers(keys, batch_size, len(tokens) - block_size)


def windows_at(tokens: Tensor, starts: Tensor, block_size: int) -> Tensor:
    """Return the windows that begin at `starts`, int64, (*starts.shape, T + 1)."""
    offsets = torch.arange(block_size + 1, device=tokens.device)
    return tokens[starts[..., None] + offsets].long()


def cut_windows(tokens: Tensor, block_size: int, limit: int | None) -> Tensor:
    """Cut `tokens` into consecutive windows, (N, T + 1) int64, padded with IGNORE.

    Neighbouring windows share one character, so every character but the first is
    predicted exactly once.

    Args:
        tokens: The split, (n,), n >= 2.
        block_size: T.
        limit: Most predictions: evenly spread windows are kept, at least one. `None`
            keeps all.
    """
    predictions = len(tokens) - 1
    block_size = min(block_size, predictions)
    count = -(-predictions // block_size)
    padded = torch.full((count * block_size + 1,), IGNORE, device=tokens.device)
    padded[: len(tokens)] = tokens.long()
    windows = padded.unfold(0, block_size + 1, block_size)
    if limit is None or limit >= predictions:
        return windows
    count = max(1, limit // block_size)
    full = predictions // block_size
    return windows[torch.arange(count, device=tokens.device) * full // count]


def even_parts(windows: Tensor, max_size: int) -> tuple[Tensor, ...]:
    """Split `windows` (N, T + 1) into parts of equal size, at most `max_size` each.

    The last part is padded with windows of IGNORE, which add nothing to a loss.
    """
    count = -(-len(windows) // max_size)
    size = -(-len(windows) // count)
    padded = F.pad(windows, (0, 0, 0, count * size - len(windows)), value=IGNORE)
    return torch.split(padded, size)
