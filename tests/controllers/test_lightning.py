"""The controller in Lightning's Trainer: as a callback and as a scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lr_gym.controllers import PolicyLR
from lr_gym.controllers.integrations.lightning import LRController, scheduler_entry

# Warnings of Lightning about the machine, the loader and the folder.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    # Every batch is the same, so the loader's position does not matter.
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
]

UNDOING_POLICY = "ramp_and_undo"  # the default rarely undoes


class Module(pl.LightningModule):
    """A small regression; tests of undo use a `rate` that is far too high."""

    def __init__(self, form: str, rate: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.form = form
        self.rate = rate
        self.used: list[float] = []

    def loss(self, batch: Any) -> Any:
        (x,) = batch
        return ((self.net(x) - x[:, :1] * x[:, 1:2]) ** 2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.rate)
        optimizer.register_step_post_hook(  # before the controller's
            lambda o, *_: self.used.append(o.param_groups[0]["lr"])
        )
        if self.form == "callback":
            return optimizer
        if self.form == "cosine":
            return [optimizer], [
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
            ]
        self.controller = PolicyLR(
            optimizer, UNDOING_POLICY, interval=4, max_iters=40, undo=self, max_lr=1e4
        )
        return scheduler_entry(self.controller, "val_loss", frequency=4)


def loader(seed: int, rows: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(8, 4, generator=generator)
    return DataLoader(TensorDataset(batch.repeat(rows // 8, 1)), batch_size=8)


def fit(
    module: Module, folder: Path, *callbacks: pl.Callback, path: Any = None, **more: Any
) -> None:
    defaults: dict[str, Any] = {
        "max_steps": 40,
        "val_check_interval": 4,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "default_root_dir": folder,
    }
    trainer = pl.Trainer(callbacks=list(callbacks), **(defaults | more))
    trainer.fit(module, loader(1, 160), loader(2, 64), ckpt_path=path)


def run(
    form: str, folder: Path, *callbacks: pl.Callback, path: Any = None, **more: Any
) -> tuple[Module, PolicyLR]:
    """Train a module in one of the two forms; return it and its controller."""
    module = Module(form, rate=30.0)
    if form == "callback":
        callback = LRController(UNDOING_POLICY, max_lr=1e4)
        fit(module, folder, callback, *callbacks, path=path, **more)
        return module, callback.controller
    fit(module, folder, *callbacks, path=path, **more)
    return module, module.controller


@pytest.mark.parametrize("form", ["callback", "entry"])
def test_lightning_uses_the_rates_that_the_controller_decided(
    form: str, tmp_path: Path
) -> None:
    module, controller = run(form, tmp_path)
    assert module.used == controller.used_learning_rates().tolist()
    assert len(set(module.used)) > 5
    assert module.used[0] == pytest.approx(30.0 / 300)
    decided = [record.iteration for record in controller.history[:10]]
    assert decided == list(range(0, 40, 4))
    assert any(record.undone for record in controller.history)


def test_a_full_check_before_training_is_the_first_loss(tmp_path: Path) -> None:
    callback = LRController()
    fit(Module("callback"), tmp_path, callback, num_sanity_val_steps=-1)
    first = callback.controller.history[0]
    assert first.iteration == 0
    assert first.val_loss is not None


class Kill(pl.Callback):
    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 27:
            raise RuntimeError("killed")


@pytest.mark.parametrize(
    ("form", "every"),
    [
        ("callback", 22),
        ("callback", 26),
        ("callback", None),  # at every validation
        ("entry", 22),
        ("entry", 26),
    ],
)
def test_a_resumed_run_uses_the_same_rates(
    form: str, every: int | None, tmp_path: Path
) -> None:
    whole, controller = run(form, tmp_path)
    undone = [record.iteration for record in controller.history if record.undone]
    assert undone

    folder = tmp_path / "cut"

    def saves() -> ModelCheckpoint:
        return ModelCheckpoint(
            folder,
            filename="{step}",
            every_n_train_steps=every,
            save_on_train_epoch_end=None if every else False,
            save_top_k=-1,
        )

    with pytest.raises(RuntimeError, match="killed"):
        run(form, folder, saves(), Kill())
    cut = every or 24
    checkpoint = folder / f"step={cut}.ckpt"
    resumed, rest = run(form, folder, saves(), path=checkpoint)
    assert resumed.used == whole.used[cut:]
    assert rest.history == controller.history


def test_a_wrong_module_or_trainer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match="returns a CosineAnnealingLR, which would also"
    ):
        fit(Module("cosine"), tmp_path, LRController())
    with pytest.raises(
        ValueError, match=r"monitor must be logged .* logged are val_loss"
    ):
        fit(Module("callback"), tmp_path, LRController(monitor="bleu"))
    with pytest.raises(ValueError, match="pass max_steps or max_epochs"):
        fit(Module("callback"), tmp_path, LRController(), max_steps=-1, max_epochs=-1)


def test_a_dry_run_leaves_a_scheduler_alone(tmp_path: Path) -> None:
    plain, watched = Module("cosine"), Module("cosine")
    fit(plain, tmp_path)
    callback = LRController(dry_run=True)
    fit(watched, tmp_path, callback)
    assert plain.used == watched.used
    assert len(callback.controller.history) > 5
