"""A plain PyTorch loop that starts from a learning rate ten times too high.

    python examples/plain_pytorch.py
    python examples/plain_pytorch.py --no-controller

One line uses the controller: it sets the learning rate at every `optimizer.step()`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.text import load_windows, read_arguments
from lr_gym.controllers import ControllerLR


class CharLM(nn.Module):
    """A recurrent character model."""

    def __init__(self, vocab_size: int, width: int = 128) -> None:
        """Make the layers."""
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.recur = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the mean loss of predicting each next character, nats."""
        hidden, _ = self.recur(self.embed(windows[:, :-1]))  # (B, T, width)
        logits = self.head(hidden).flatten(0, 1)
        return nn.functional.cross_entropy(logits, windows[:, 1:].flatten())


def main(arguments: list[str] | None = None) -> float:
    """Train; return the final validation loss."""
    iterations, learning_rate, controlled, seed = read_arguments(__doc__, arguments)
    train, val, vocab_size = load_windows()
    torch.manual_seed(seed)
    model = CharLM(vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)

    if controlled:
        ControllerLR(optimizer, total_steps=iterations)
    for _ in range(iterations):
        batch = train[torch.randint(len(train), (32,))]
        optimizer.zero_grad()
        model(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    with torch.no_grad():
        final = float(model(val))
    print(f"final val_loss {final:.4f}")
    return final


if __name__ == "__main__":
    main()
