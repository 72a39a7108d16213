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

from lr_gym.controllers import ControllerLR
from lr_gym.controllers.integrations.lightning import LRController, scheduler_entry

# Warnings of Lightning about the machine, the loader and the folder.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no"),
    # Every batch is the same, so the loader's position does not matter.
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
]

UPDATES = 40
RATE = 0.1


class Module(pl.LightningModule):
    """A small regression; `form` says what `configure_optimizers` returns."""

    def __init__(self, form: str = "callback", monitor: str | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.form = form
        self.monitor = monitor
        self.used: list[float] = []

    def loss(self, batch: Any) -> Any:
        (x,) = batch
        return ((self.net(x) - x[:, :1] * x[:, 1:2]) ** 2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=RATE)
        optimizer.register_step_post_hook(  # before the controller's
            lambda o, *_: self.used.append(o.param_groups[0]["lr"])
        )
        if self.form == "callback":
            return optimizer
        if self.form == "cosine":
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
            return [optimizer], [cosine]
        steps = int(self.trainer.estimated_stepping_batches)
        self.controller = ControllerLR(optimizer, total_steps=steps)
        frequency = 4 if self.form == "entry within epochs" else None
        return scheduler_entry(self.controller, self.monitor, frequency)


def loader(seed: int, rows: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(8, 4, generator=generator)
    return DataLoader(TensorDataset(batch.repeat(rows // 8, 1)), batch_size=8)


def fit(
    module: Module,
    folder: Path,
    *callbacks: pl.Callback,
    path: Any = None,
    val: bool = True,
    **more: Any,
) -> pl.Trainer:
    """Train for two epochs of 20 batches."""
    defaults: dict[str, Any] = {
        "max_epochs": 2,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "default_root_dir": folder,
    }
    trainer = pl.Trainer(callbacks=list(callbacks), **(defaults | more))
    val_loader = loader(2, 64) if val else None
    trainer.fit(module, loader(1, 160), val_loader, ckpt_path=path)
    return trainer


def plain_rates() -> list[float]:
    """Return the rates of the same training in plain torch."""
    module = Module()
    optimizer = module.configure_optimizers()
    ControllerLR(optimizer, total_steps=UPDATES)
    batch = next(iter(loader(1, 8)))
    for _ in range(UPDATES):
        optimizer.zero_grad()
        module.loss(batch).backward()
        optimizer.step()
    return module.used


@pytest.mark.parametrize("val", [False, True])
@pytest.mark.parametrize("form", ["callback", "entry"])
def test_the_rates_are_those_of_plain_torch(
    form: str, val: bool, tmp_path: Path
) -> None:
    module, callback = Module(form), LRController()
    fit(module, tmp_path, *([callback] if form == "callback" else []), val=val)
    controller = callback.controller if form == "callback" else module.controller
    assert module.used == pytest.approx(plain_rates(), rel=1e-4)
    assert module.used == controller.used_learning_rates().tolist()
    assert module.used[0] == pytest.approx(RATE / 300)
    assert max(module.used) > 2 * module.used[0]
    assert module.used[-1] == pytest.approx(max(module.used) / 12)


def test_updates_of_accumulated_gradients_are_counted(tmp_path: Path) -> None:
    module, callback = Module(), LRController()
    fit(module, tmp_path, callback, accumulate_grad_batches=3, max_epochs=4)
    assert callback.controller.total_steps == callback.controller.last_epoch == 28
    assert module.used == callback.controller.used_learning_rates().tolist()


@pytest.mark.parametrize(
    ("form", "interval", "evaluated"),
    [
        ("callback", None, [20, 40]),
        ("callback", 4, list(range(4, 41, 4))),
        ("entry", None, [20, 40]),
        ("entry within epochs", 4, list(range(4, 41, 4))),
    ],
)
def test_the_controller_sees_the_metric(
    form: str, interval: int | None, evaluated: list[int], tmp_path: Path
) -> None:
    module, callback = Module(form, "val_loss"), LRController("val_loss")
    callbacks = [callback] if form == "callback" else []
    more: dict[str, Any] = {"num_sanity_val_steps": 1, "val_check_interval": interval}
    trainer = fit(module, tmp_path, *callbacks, **more)
    controller = callback.controller if form == "callback" else module.controller
    assert [record.iteration for record in controller.history] == evaluated
    last = controller.history[-1].val_loss
    assert last == pytest.approx(float(trainer.callback_metrics["val_loss"]))
    trainer.validate(module, loader(2, 64), verbose=False)
    assert len(controller.history) == len(evaluated), "not after training"


def test_damage_is_undone(tmp_path: Path) -> None:
    class Damage(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 38:
                with torch.no_grad():
                    for weight in pl_module.parameters():
                        weight.mul_(30.0)

    callback = LRController("val_loss", undo=True)
    trainer = fit(Module(), tmp_path, callback, Damage(), val_check_interval=2)
    undone = [record.undone for record in callback.controller.history]
    assert undone == [False] * 18 + [True, False]
    assert float(trainer.callback_metrics["val_loss"]) < 1.5


@pytest.mark.parametrize("form", ["callback", "entry"])
@pytest.mark.parametrize("cut", [18, 34])  # in the hold, and in the cooldown
def test_a_resumed_run_uses_the_same_rates(form: str, cut: int, tmp_path: Path) -> None:
    def run(path: Any = None) -> list[float]:
        module = Module(form)
        callbacks: list[pl.Callback] = [
            ModelCheckpoint(
                tmp_path,
                filename="{step}",
                every_n_train_steps=cut,
                save_top_k=-1,
            )
        ]
        if form == "callback":
            callbacks.append(LRController())
        fit(module, tmp_path, *callbacks, path=path)
        return module.used

    whole = run()
    assert run(tmp_path / f"step={cut}.ckpt") == whole[cut:]


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_checkpoint_without_a_controller_is_continued(tmp_path: Path) -> None:
    saves = ModelCheckpoint(tmp_path, filename="{step}")
    fit(Module("cosine"), tmp_path, saves, max_epochs=1)
    module, callback = Module(), LRController()
    saves = ModelCheckpoint(tmp_path, filename="second", every_n_train_steps=30)
    path = tmp_path / "step=20.ckpt"
    with pytest.warns(UserWarning, match="the 20 updates that are left as its whole"):
        fit(module, tmp_path, callback, saves, path=path)
    assert module.used[0] == pytest.approx(RATE / 300)
    assert module.used[-1] == pytest.approx(max(module.used) / 6)

    rest = Module()
    fit(rest, tmp_path, LRController(), path=tmp_path / "second.ckpt")
    assert rest.used == module.used[10:]


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="undo=True needs a metric"):
        LRController(undo=True)
    with pytest.raises(ValueError, match="mode must be one of min, max"):
        LRController(mode="low")
    with pytest.raises(TypeError, match="unexpected keyword argument 'interval'"):
        LRController(interval=10)
    with pytest.raises(
        RuntimeError, match="returns a CosineAnnealingLR, which would also"
    ):
        fit(Module("cosine"), tmp_path, LRController())
    with pytest.raises(
        ValueError, match=r"monitor must be logged .* logged are val_loss"
    ):
        fit(Module(), tmp_path, LRController("bleu"))
    with pytest.raises(ValueError, match="monitor='val_loss' needs validations"):
        fit(Module(), tmp_path, LRController("val_loss"), val=False)
    with pytest.raises(ValueError, match="pass max_steps, or max_epochs"):
        fit(Module(), tmp_path, LRController(), max_steps=-1, max_epochs=-1)
    more: dict[str, Any] = {"check_val_every_n_epoch": 5}
    with pytest.warns(UserWarning, match="the controller saw no validation"):
        fit(Module(), tmp_path, LRController("val_loss"), **more)


def test_a_dry_run_leaves_a_scheduler_alone(tmp_path: Path) -> None:
    plain, watched = Module("cosine"), Module("cosine")
    fit(plain, tmp_path)
    callback = LRController("val_loss", dry_run=True)
    fit(watched, tmp_path, callback)
    assert plain.used == watched.used
    assert len(callback.controller.history) == 2
    assert callback.controller.used_learning_rates()[0] == pytest.approx(RATE / 300)
