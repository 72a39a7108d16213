"""The controller in Lightning: as a callback, or in `configure_optimizers`.

    from lr_gym.controllers.integrations.lightning import LRController
    trainer = Trainer(max_steps=600, val_check_interval=10, callbacks=[LRController()])

or, because `PolicyLR` is a torch scheduler,

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        controller = PolicyLR(optimizer, interval=10, max_iters=600, undo=self)
        return scheduler_entry(controller, monitor="val_loss")

Needs lightning: ``pip install 'lr-gym[lightning]'``.
"""

from __future__ import annotations

import os
from typing import Any

from lr_gym.controllers.policies.policy import Policy
from lr_gym.controllers.policy_lr import PolicyLR

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "lr_gym.controllers.integrations.lightning needs lightning: "
        "pip install 'lr-gym[lightning]'"
    ) from error


def scheduler_entry(
    controller: PolicyLR, monitor: str, interval: str = "step", frequency: int = 1
) -> dict[str, Any]:
    """Return the dict that `configure_optimizers` must return.

    Lightning then passes the loss to `controller.step` after validation, as for
    ReduceLROnPlateau. Its checkpoints hold the controller's state. Write them between
    validations: at a validation, Lightning writes the checkpoint before it calls the
    scheduler, and a resumed run misses that decision.

    Args:
        controller: Create it with ``undo=self`` if the policy undoes.
        monitor: The name under which the validation loss is logged.
        interval: The unit of `frequency`, ``step`` or ``epoch``.
        frequency: How often Lightning calls the controller: `val_check_interval` or a
            multiple of it, in batches.
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
    """Decides at Lightning's validations and sets the learning rate.

    With ``num_sanity_val_steps=-1`` the Trainer evaluates the whole validation set
    before training, and the policy uses that loss first.

    Lightning's checkpoints hold the controller's state. Write them at the end of a
    validation (a `ModelCheckpoint` with ``save_on_train_epoch_end=False``) or between
    validations. A checkpoint of ``every_n_train_steps`` at a validation is written
    before it, and a resumed run misses that decision.

    Attributes:
        controller: The `PolicyLR`; exists once training has started.
    """

    controller: PolicyLR

    def __init__(
        self,
        policy: str | os.PathLike[str] | Policy = "default",
        *,
        monitor: str = "val_loss",
        interval: int | None = None,
        undo: bool = True,
        **settings: Any,
    ) -> None:
        """Choose the policy; the Trainer sets the run's length.

        Args:
            policy: See `PolicyLR`.
            monitor: The name under which the validation loss is logged.
            interval: Iterations between decisions; `None` decides at every validation.
            undo: Whether the policy can undo, which needs the memory of a copy of model
                and optimizer.
            **settings: Further keywords of `PolicyLR`: `min_lr`, `max_lr`,
                `warmup_iters`, `snapshot_device`, `dry_run`, ...
        """
        self.policy = policy
        self.monitor = monitor
        self.interval = interval
        self.undo = undo
        self.settings = settings
        self._saved_state: dict[str, Any] | None = None
        self._initial_loss: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the optimizer's learning rate.

        Raises:
            RuntimeError: The module has a scheduler, or several optimizers.
            ValueError: The length of the run or the interval is unknown.
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
        self.controller = PolicyLR(
            trainer.optimizers[0],
            self.policy,
            interval=self.interval or _interval(trainer),
            max_iters=_max_iters(trainer),
            undo=pl_module if self.undo else (),
            **self.settings,
        )
        if self._saved_state is not None:
            self.controller.load_state_dict(self._saved_state)
            self._saved_state = None
        elif self._initial_loss is not None:
            self.controller.step(self._initial_loss)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the controller decide, if it needs an evaluation now.

        Raises:
            ValueError: No loss is logged under `monitor`.
        """
        if trainer.sanity_checking:
            if trainer.num_sanity_val_steps == float("inf"):
                self._initial_loss = self._loss(trainer)
        elif hasattr(self, "controller") and self.controller.needs_evaluation:
            self.controller.step(self._loss(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop controlling the optimizer."""
        self.controller.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return the controller's state, for Lightning's checkpoint."""
        return self.controller.state_dict() if hasattr(self, "controller") else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until training starts."""
        self._saved_state = state_dict or None

    def _loss(self, trainer: Trainer) -> float:
        """Return the logged validation loss."""
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
