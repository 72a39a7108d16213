"""A Lightning module, from a learning rate ten times too high.

    python examples/lightning_module.py
    python examples/lightning_module.py --no-controller

The model is that of `plain_pytorch.py`. The callback sets the learning rate.
`lr_gym.controllers.integrations.lightning.scheduler_entry` is the alternative.
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from examples.plain_pytorch import CharLM
from examples.text import load_windows, read_arguments
from lr_gym.controllers.integrations.lightning import LRController


class Module(pl.LightningModule):
    """Trains a `CharLM`."""

    def __init__(self, vocab_size: int, learning_rate: float) -> None:
        """Create the model."""
        super().__init__()
        self.model = CharLM(vocab_size)
        self.learning_rate = learning_rate

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss: Tensor = self.model(batch)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the validation loss."""
        self.log("val_loss", self.model(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer alone: no scheduler."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


def make_loader(
    windows: Tensor, batch_size: int, shuffle: bool = False
) -> DataLoader[Tensor]:
    """Return a loader of windows."""
    return DataLoader(windows, batch_size, shuffle)  # type: ignore[arg-type]  # a tensor works


def main(arguments: list[str] | None = None) -> float:
    """Train; return the final validation loss."""
    iterations, learning_rate, controlled, seed = read_arguments(__doc__, arguments)
    train, val, vocab_size = load_windows()
    torch.manual_seed(seed)
    trainer = pl.Trainer(
        max_steps=iterations,
        gradient_clip_val=1.0,
        callbacks=[LRController()] if controlled else [],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    module = Module(vocab_size, learning_rate)
    val_loader = make_loader(val, 128)
    trainer.fit(module, make_loader(train, 32, shuffle=True), val_loader)
    final = float(trainer.validate(module, val_loader, verbose=False)[0]["val_loss"])
    print(f"final val_loss {final:.4f}")
    return final


if __name__ == "__main__":
    main()
