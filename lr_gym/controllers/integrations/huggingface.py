"""`LRControllerCallback`: the controller in Hugging Face's Trainer.

    from lr_gym.controllers.integrations.huggingface import LRControllerCallback
    trainer = Trainer(..., callbacks=[LRControllerCallback()])
    trainer.train()

Needs transformers: ``pip install 'lr-gym[transformers]'``.

The Trainer's scheduler writes the learning rate after every update. Here it writes what
the controller decided: its factors are replaced by the controller's. A scheduler whose
factors cannot be replaced is refused, and whatever else writes is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lr_gym.controllers.policies.policy import Policy
from lr_gym.controllers.scheduler import ControllerLR
from lr_gym.controllers.snapshots import load_state, save_state

try:
    from transformers import (
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ImportError as error:
    raise ImportError(
        "lr_gym.controllers.integrations.huggingface needs transformers: "
        "pip install 'lr-gym[transformers]'"
    ) from error

STATE_FILE = "lr_controller.safetensors"  # in each of the Trainer's checkpoints


class LRControllerCallback(TrainerCallback):
    """Decides at the Trainer's evaluations, and owns its learning rate.

    Evaluations come every `eval_steps`; `eval_on_start=True` gives the policy a loss
    before training. The controller's state, snapshot included, goes into every
    checkpoint; resuming reads it from there.

    Attributes:
        controller: The `ControllerLR`, from the start of training on.
    """

    controller: ControllerLR

    def __init__(
        self,
        policy: str | os.PathLike[str] | Policy = "default",
        *,
        metric: str = "eval_loss",
        undo: bool = True,
        resume_from: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        """Choose the policy; the run's length and interval are the Trainer's.

        Args:
            policy: As of `ControllerLR`.
            metric: Of the evaluation, what the policy sees as validation loss.
            undo: Whether chunks of training can be taken back, which takes the memory
                of a copy of model and optimizer.
            resume_from: The checkpoint's folder, where it is not in `output_dir`.
            **settings: Further keywords of `ControllerLR`: `min_lr`, `max_lr`,
                `warmup_iters`, `snapshot_device`, `dry_run`, ...
        """
        self.policy = policy
        self.metric = metric
        self.undo = undo
        self.resume_from = resume_from
        self.settings = settings

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Take the optimizer over.

        Raises:
            ValueError: The Trainer does not evaluate while it trains.
            RuntimeError: Its scheduler cannot be owned, or the checkpoint it resumes
                from holds no controller's state.
        """
        optimizer = _plain_optimizer(given["optimizer"])
        interval = _interval(args, state)
        if not self.settings.get("dry_run", False):
            # A warm-up may have begun: start from the rates the scheduler was given.
            rates = _plain_scheduler(given["lr_scheduler"]).base_lrs
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        self.controller = ControllerLR(
            optimizer,
            self.policy,
            interval=interval,
            max_iters=state.max_steps,
            undo=given["model"] if self.undo else (),
            **self.settings,
        )
        if state.global_step > 0:
            self.controller.load_state_dict(load_state(self._state_file(args, state)))
        if not self.controller.dry_run:
            _own(_plain_scheduler(given["lr_scheduler"]), self.controller)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **given: Any,
    ) -> None:
        """Decide, where a decision is due.

        Raises:
            ValueError: The evaluation has no such metric.
        """
        if not hasattr(self, "controller") or not self.controller.needs_evaluation:
            return  # before training, or an evaluation of the user's own
        if metrics is None or self.metric not in metrics:
            raise ValueError(
                f"metric must be one of {', '.join(metrics or {})}; got {self.metric!r}"
            )
        self.controller.step(metrics[self.metric])
        if not self.controller.dry_run:  # what the Trainer logs as its learning rate
            scheduler = _plain_scheduler(given["lr_scheduler"])
            scheduler._last_lr = self.controller.get_last_lr()

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Write the controller's state into the checkpoint."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            save_state(self.controller.state_dict(), folder / STATE_FILE)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Let the optimizer go."""
        self.controller.detach()

    def _state_file(self, args: TrainingArguments, state: TrainerState) -> Path:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        path = Path(self.resume_from or folder) / STATE_FILE
        if not path.is_file():
            raise RuntimeError(
                f"training resumes at step {state.global_step}, but there is no "
                f"{path}: pass resume_from= the folder of that checkpoint"
            )
        return path


def _plain_optimizer(optimizer: Any) -> Optimizer:  # noqa: ANN401 - may be wrapped
    """Return torch's optimizer under accelerate's wrapper."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(inner, Optimizer):
        raise RuntimeError(
            f"the controller needs a torch optimizer, got {type(inner).__name__}"
        )
    return inner


def _interval(args: TrainingArguments, state: TrainerState) -> int:
    """Return the updates between evaluations."""
    strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
    if strategy == "steps":
        return int(state.eval_steps)
    if strategy == "epoch":
        return max(1, round(state.max_steps / state.num_train_epochs))
    raise ValueError(
        "the controller decides at evaluations: pass eval_strategy='steps' and "
        f"eval_steps to TrainingArguments, got eval_strategy={strategy!r}"
    )


def _plain_scheduler(scheduler: Any) -> LambdaLR:  # noqa: ANN401 - may be wrapped
    """Return torch's scheduler under accelerate's wrapper.

    Raises:
        RuntimeError: It is not made of factors that can be replaced.
    """
    inner = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(inner, LambdaLR):
        raise RuntimeError(
            f"the Trainer's {type(inner).__name__} would set the learning rate as "
            "well: use an lr_scheduler_type that is made of factors, such as 'constant'"
        )
    return inner


def _own(scheduler: LambdaLR, controller: ControllerLR) -> None:
    """Make the Trainer's scheduler repeat what the controller has written."""

    def factor(group: int) -> Callable[[int], float]:
        base = float(scheduler.base_lrs[group])
        return lambda _: float(controller.get_last_lr()[group]) / base if base else 1.0

    scheduler.lr_lambdas = [factor(i) for i in range(len(scheduler.base_lrs))]
