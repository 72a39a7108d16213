"""The controller in Lightning: as an entry of `configure_optimizers`, or as a callback.

    from lr_gym.controllers.integrations.lightning import LRController
    trainer = Trainer(max_steps=600, val_check_interval=10, callbacks=[LRController()])

or, since `ControllerLR` is a scheduler of torch's,

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        controller = ControllerLR(optimizer, interval=10, max_iters=600, undo=self)
        return scheduler_entry(controller, monitor="val_loss")

Needs lightning: ``pip install 'lr-gym[lightning]'``.
"""

from __future__ import annotations

import os
from typing import Any

from lr_gym.controllers.policies.policy import Policy
from lr_gym.controllers.scheduler import ControllerLR

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "lr_gym.controllers.integrations.lightning needs lightning: "
        "pip install 'lr-gym[lightning]'"
    ) from error


def scheduler_entry(
    controller: ControllerLR, monitor: str, interval: str = "step", frequency: int = 1
) -> dict[str, Any]:
    """Return what `configure_optimizers` has to return.

    Lightning then calls `controller.step(monitor)` after validation, as it does with
    ReduceLROnPlateau; its checkpoints hold the controller's state. Write them between
    validations: Lightning calls schedulers after a checkpoint that is written at one,
    and does not make up for that when it resumes.

    Args:
        controller: Made with ``undo=self`` where the policy undoes.
        monitor: The validation loss, as it is logged.
        interval: ``step`` or ``epoch``: after which Lightning looks at `monitor`.
        frequency: After how many of them; Lightning's `val_check_interval` or a
            multiple of it, counted in batches.
    """
    return {
        "optimizer": controller.optimizer,
        "lr_scheduler": {
            "scheduler": controller,
            "monitor": monitor,
            "reduce_on_plateau": True,
            "interval": interval,
            "frequency": frequency,
        },
    }


class LRController(Callback):
    """Decides at Lightning's validations, and owns the learning rate.

    Where the Trainer checks the whole validation set before it trains
    (``num_sanity_val_steps=-1``), the policy sees that loss first.

    Its state is in Lightning's checkpoints. Write them when a validation ends (a
    `ModelCheckpoint` with ``save_on_train_epoch_end=False``) or between validations:
    one of ``every_n_train_steps`` that falls on a validation is written before it, and
    Lightning does not make up for the validation when it resumes.

    Attributes:
        controller: The `ControllerLR`, from the start of training on.
    """

    controller: ControllerLR

    def __init__(
        self,
        policy: str | os.PathLike[str] | Policy = "default",
        *,
        monitor: str = "val_loss",
        interval: int | None = None,
        undo: bool = True,
        **settings: Any,
    ) -> None:
        """Choose the policy; the run's length is the Trainer's.

        Args:
            policy: As of `ControllerLR`.
            monitor: The validation loss, as it is logged.
            interval: Updates between decisions; `None` decides at every validation.
            undo: Whether chunks of training can be taken back, which takes the memory
                of a copy of model and optimizer.
            **settings: Further keywords of `ControllerLR`: `min_lr`, `max_lr`,
                `warmup_iters`, `snapshot_device`, `dry_run`, ...
        """
        self.policy = policy
        self.monitor = monitor
        self.interval = interval
        self.undo = undo
        self.settings = settings
        self._saved: dict[str, Any] | None = None
        self._initial: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the optimizer over.

        Raises:
            RuntimeError: The module has a scheduler, or several optimizers.
            ValueError: The length of the run or of the interval is not known.
        """
        dry_run = self.settings.get("dry_run", False)
        if trainer.lr_scheduler_configs and not dry_run:
            name = type(trainer.lr_scheduler_configs[0].scheduler).__name__
            raise RuntimeError(
                f"configure_optimizers returns a {name}, which would set the learning "
                "rate as well: return the optimizer alone"
            )
        if len(trainer.optimizers) != 1:
            raise RuntimeError(
                f"the controller needs one optimizer, got {len(trainer.optimizers)}"
            )
        self.controller = ControllerLR(
            trainer.optimizers[0],
            self.policy,
            interval=self.interval or _interval(trainer),
            max_iters=_max_iters(trainer),
            undo=pl_module if self.undo else (),
            **self.settings,
        )
        if self._saved is not None:
            self.controller.load_state_dict(self._saved)
            self._saved = None
        elif self._initial is not None:
            self.controller.step(self._initial)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide, where a decision is due.

        Raises:
            ValueError: Nothing is logged under `monitor`.
        """
        if trainer.sanity_checking:
            if trainer.num_sanity_val_steps == float("inf"):
                self._initial = self._loss(trainer)
        elif hasattr(self, "controller") and self.controller.needs_evaluation:
            self.controller.step(self._loss(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the optimizer go."""
        self.controller.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's state, for Lightning's checkpoint."""
        return self.controller.state_dict() if hasattr(self, "controller") else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until the optimizer is there."""
        self._saved = state_dict or None

    def _loss(self, trainer: Trainer) -> float:
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"monitor must be logged in validation_step, got {self.monitor!r}; "
                f"logged are {', '.join(trainer.callback_metrics) or 'none'}"
            )
        return float(trainer.callback_metrics[self.monitor])


def _max_iters(trainer: Trainer) -> int:
    """Return the updates of the whole run."""
    total = trainer.estimated_stepping_batches
    if total == float("inf"):
        raise ValueError(
            "the controller needs the length of the run: pass max_steps or max_epochs"
        )
    return int(total)


def _interval(trainer: Trainer) -> int:
    """Return the updates between validations."""
    batches = trainer.val_check_batch
    if batches is None or batches == float("inf"):
        raise ValueError(
            "the controller needs the updates between validations: pass an integer "
            "val_check_interval to the Trainer, or interval to the controller"
        )
    every = trainer.check_val_every_n_epoch or 1
    return max(1, int(batches) * every // trainer.accumulate_grad_batches)
