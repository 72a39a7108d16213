"""The controller in Lightning: as a callback, or in `configure_optimizers`.

    from lr_gym.controllers.integrations.lightning import LRController
    trainer = Trainer(max_epochs=10, callbacks=[LRController()])

or, because `ControllerLR` is a torch scheduler,

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        steps = self.trainer.estimated_stepping_batches
        return scheduler_entry(ControllerLR(optimizer, total_steps=steps))

Needs lightning: ``pip install 'lr-gym[lightning]'``.
"""

from __future__ import annotations

import warnings
from typing import Any

from lr_gym.controllers.controller import MODES, ControllerLR
from lr_gym.controllers.integrations.controlled_run import (
    SETTINGS,
    ControlledRun,
    check_metric,
)
from lr_gym.validation import check_choice, check_keywords

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "lr_gym.controllers.integrations.lightning needs lightning: "
        "pip install 'lr-gym[lightning]'"
    ) from error


def scheduler_entry(
    controller: ControllerLR, monitor: str | None = None, frequency: int | None = None
) -> dict[str, Any]:
    """Return the dict that `configure_optimizers` must return.

    Lightning's checkpoints hold the controller's state. To resume from one that was
    made without a controller, use `LRController` instead.

    Args:
        controller: Of the module's optimizer.
        monitor: The name of a logged metric that Lightning passes to `controller.step`,
            as for ReduceLROnPlateau; `None` passes none.
        frequency: Batches between validations, if those are within epochs: the value of
            `val_check_interval`. `None` passes the metric once an epoch.
    """
    entry: dict[str, Any] = {"scheduler": controller, "interval": "epoch"}
    if monitor is not None:
        entry |= {"monitor": monitor, "reduce_on_plateau": True}
    if frequency is not None:
        entry |= {"interval": "step", "frequency": frequency}
    return {"optimizer": controller.optimizer, "lr_scheduler": entry}


class LRController(Callback):
    """Sets the learning rate of Lightning's optimizer. No validation is needed.

    The optimizer's learning rate is a guess. Checkpoints hold the controller's state,
    and a resumed training loads it.

    Attributes:
        controller: The `ControllerLR`; exists once training has started.
    """

    controller: ControllerLR

    def __init__(
        self,
        monitor: str | None = None,
        mode: str = "min",
        undo: bool = False,
        **settings: Any,
    ) -> None:
        """Choose what the controller sees of validations; by default, nothing.

        Args:
            monitor: The name of a metric that is logged in validation and shows damage.
            mode: ``min`` if a lower metric is better, ``max`` if a higher one is.
            undo: Whether damage is undone, which needs `monitor`, and the memory of a
                copy of model and optimizer.
            **settings: Further keywords of `ControllerLR`: `min_lr`, `max_lr`,
                `snapshot_device`, `dry_run`.

        Raises:
            TypeError: An argument has the wrong type, or a keyword is unknown.
            ValueError: `mode` is neither, or `undo` is set without `monitor`.
        """
        named = ("monitor", "mode", "undo")
        check_keywords("LRController", settings, (*named, *SETTINGS))
        check_metric("monitor", monitor, undo)
        check_choice("mode", mode, MODES)
        self.monitor = monitor
        self.mode = mode
        self.undo = undo
        self.settings = settings
        self._run: ControlledRun | None = None
        self._saved: dict[str, Any] | None = None
        self._reported = False  # whether a validation logged the metric

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the optimizer's learning rates.

        Raises:
            RuntimeError: The module has a scheduler, or several optimizers.
            ValueError: The length of the run is unknown, or there is a metric but no
                validation.
        """
        dry_run = self.settings.get("dry_run", False)
        if trainer.lr_scheduler_configs and not dry_run:
            name = type(trainer.lr_scheduler_configs[0].scheduler).__name__
            raise RuntimeError(
                f"configure_optimizers returns a {name}, which would also set the "
                "learning rate: return the optimizer alone"
            )
        if len(trainer.optimizers) != 1:
            raise RuntimeError(
                f"the controller needs one optimizer, got {len(trainer.optimizers)}"
            )
        if self.monitor is not None and not trainer.enable_validation:
            raise ValueError(
                f"monitor={self.monitor!r} needs validations: pass val_dataloaders to "
                "fit() and define validation_step, or pass no monitor"
            )
        self._reported = False
        self._run = ControlledRun(
            trainer.optimizers[0],
            _total_steps(trainer),
            trainer.global_step,
            self._saved,
            mode=self.mode,
            undo=pl_module if self.undo else (),
            **self.settings,
        )
        self.controller = self._run.controller
        self._saved = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pass the metric to the controller.

        Raises:
            ValueError: Nothing is logged under `monitor`.
        """
        training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self.monitor is None or not training:
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"monitor must be logged in validation_step, got {self.monitor!r}; "
                f"logged are {', '.join(trainer.callback_metrics) or 'none'}"
            )
        self._reported = True
        self.controller.step(float(trainer.callback_metrics[self.monitor]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop controlling the optimizer."""
        self.controller.detach()
        if self.monitor is not None and not self._reported:
            warnings.warn(
                "the controller saw no validation: there was none during training",
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's state, for Lightning's checkpoint."""
        return {} if self._run is None else self._run.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until training starts."""
        self._saved = state_dict or None


def _total_steps(trainer: Trainer) -> int:
    """Return the updates of the whole run."""
    total = trainer.estimated_stepping_batches
    if total == float("inf") or total < 1:
        raise ValueError(
            "the controller needs the length of the run: pass max_steps, or max_epochs "
            "with a loader that has a length"
        )
    return int(total)
