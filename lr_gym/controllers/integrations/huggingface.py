"""`LRControllerCallback`: the controller in Hugging Face's Trainer.

    from lr_gym.controllers.integrations.huggingface import LRControllerCallback
    trainer = Trainer(..., callbacks=[LRControllerCallback()])
    trainer.train()

Needs transformers: ``pip install 'lr-gym[transformers]'``.

The Trainer's scheduler sets the learning rate after every update. The callback replaces
the scheduler's factors, so that it sets the controller's learning rate. Any other
scheduler or callback that sets the learning rate causes an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lr_gym.controllers.policies.policy import Policy
from lr_gym.controllers.policy_lr import PolicyLR
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

STATE_FILE = "lr_controller.safetensors"  # in each checkpoint of the Trainer


class LRControllerCallback(TrainerCallback):
    """Decides at the Trainer's evaluations and sets its learning rate.

    Set `eval_steps`, and `eval_on_start=True` to give the policy a loss before
    training. Every checkpoint holds the controller's state, including the snapshot; a
    resumed training loads it.

    Attributes:
        controller: The `PolicyLR`; exists once training has started.
    """

    controller: PolicyLR

    def __init__(
        self,
        policy: str | os.PathLike[str] | Policy = "default",
        *,
        metric: str = "eval_loss",
        undo: bool = True,
        resume_from: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        """Choose the policy; the Trainer sets the run's length and the interval.

        Args:
            policy: See `PolicyLR`.
            metric: The evaluation metric that the policy sees as validation loss.
            undo: Whether the policy can undo, which needs the memory of a copy of model
                and optimizer.
            resume_from: The checkpoint's folder, if it is not in `output_dir`.
            **settings: Further keywords of `PolicyLR`: `min_lr`, `max_lr`,
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
        **objects: Any,
    ) -> None:
        """Take over the optimizer's learning rate.

        Raises:
            ValueError: The Trainer does not evaluate during training.
            RuntimeError: The Trainer's scheduler cannot be replaced, or the checkpoint
                to resume from has no controller state.
        """
        optimizer = _plain_optimizer(objects["optimizer"])
        interval = _interval(args, state)
        if not self.settings.get("dry_run", False):
            # The scheduler's warm-up has already changed the learning rates.
            base_lrs = _plain_scheduler(objects["lr_scheduler"]).base_lrs
            for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = base_lr
        self.controller = PolicyLR(
            optimizer,
            self.policy,
            interval=interval,
            max_iters=state.max_steps,
            undo=objects["model"] if self.undo else (),
            **self.settings,
        )
        if state.global_step > 0:
            self.controller.load_state_dict(load_state(self._state_file(args, state)))
        if not self.controller.dry_run:
            _replace_factors(_plain_scheduler(objects["lr_scheduler"]), self.controller)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **objects: Any,
    ) -> None:
        """Let the controller decide, if it needs an evaluation now.

        Raises:
            ValueError: The evaluation does not report `metric`.
        """
        if not hasattr(self, "controller") or not self.controller.needs_evaluation:
            return  # an evaluation before training, or between decisions
        if metrics is None or self.metric not in metrics:
            raise ValueError(
                f"metric must be one of {', '.join(metrics or {})}; got {self.metric!r}"
            )
        self.controller.step(metrics[self.metric])
        if not self.controller.dry_run:  # the Trainer logs the scheduler's last value
            scheduler = _plain_scheduler(objects["lr_scheduler"])
            scheduler._last_lr = self.controller.get_last_lr()

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **objects: Any,
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
        **objects: Any,
    ) -> None:
        """Stop controlling the optimizer."""
        self.controller.detach()

    def _state_file(self, args: TrainingArguments, state: TrainerState) -> Path:
        """Return the path of the controller's state in the checkpoint to resume."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        path = Path(self.resume_from or folder) / STATE_FILE
        if not path.is_file():
            raise RuntimeError(
                f"training resumes at step {state.global_step}, but {path} does not "
                "exist: pass the folder of that checkpoint as resume_from"
            )
        return path


def _plain_optimizer(optimizer: Any) -> Optimizer:  # noqa: ANN401 - may be wrapped
    """Return the torch optimizer inside accelerate's wrapper."""
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
    """Return the torch scheduler inside accelerate's wrapper.

    Raises:
        RuntimeError: It is not a `LambdaLR`, so its factors cannot be replaced.
    """
    inner = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(inner, LambdaLR):
        raise RuntimeError(
            f"the Trainer's {type(inner).__name__} would also set the learning rate: "
            "use an lr_scheduler_type that is a LambdaLR, such as 'constant'"
        )
    return inner


def _replace_factors(scheduler: LambdaLR, controller: PolicyLR) -> None:
    """Make the Trainer's scheduler set the controller's learning rates."""

    def factor(group: int) -> Callable[[int], float]:
        base = float(scheduler.base_lrs[group])
        return lambda _: float(controller.get_last_lr()[group]) / base if base else 1.0

    scheduler.lr_lambdas = [factor(i) for i in range(len(scheduler.base_lrs))]
