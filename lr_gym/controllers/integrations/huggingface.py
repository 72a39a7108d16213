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

import warnings
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lr_gym.controllers.controller import ControllerLR
from lr_gym.controllers.integrations.controlled_run import (
    SETTINGS,
    ControlledRun,
    check_metric,
)
from lr_gym.validation import check_boolean, check_keywords

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

PREFIX = "eval"  # of the metrics of the Trainer's evaluations
SAVED = "lr_controller"  # the entry in the state of the Trainer's scheduler


class LRControllerCallback(TrainerCallback):
    """Sets the Trainer's learning rate. No evaluation is needed.

    `learning_rate` in `TrainingArguments` is a guess, and the Trainer's warm-up and
    decay do not apply. Checkpoints hold the controller's state, and a resumed training
    loads it.

    Attributes:
        controller: The `ControllerLR`; exists once training has started.
    """

    controller: ControllerLR

    def __init__(
        self,
        metric: str | None = None,
        greater_is_better: bool = False,
        undo: bool = False,
        **settings: Any,
    ) -> None:
        """Choose what the controller sees of evaluations; by default, nothing.

        Args:
            metric: The metric that shows damage, with or without ``eval_``: ``loss``,
                or ``a_loss`` of the evaluation set ``a``. The controller sees the
                evaluations that report it.
            greater_is_better: Whether a higher metric is better.
            undo: Whether damage is undone, which needs a metric, and the memory of a
                copy of model and optimizer.
            **settings: Further keywords of `ControllerLR`: `min_lr`, `max_lr`,
                `snapshot_device`, `dry_run`.

        Raises:
            TypeError: An argument has the wrong type, or a keyword is unknown.
            ValueError: `undo` is set without a metric.
        """
        named = ("metric", "greater_is_better", "undo")
        check_keywords("LRControllerCallback", settings, (*named, *SETTINGS))
        check_metric("metric", metric, undo)
        check_boolean("greater_is_better", greater_is_better)
        if metric is not None and not metric.startswith(f"{PREFIX}_"):
            metric = f"{PREFIX}_{metric}"
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.undo = undo
        self.settings = settings
        self._training = False
        self._reported = False  # whether an evaluation reported the metric
        self._seen: dict[str, list[str]] = {}  # other metrics by evaluation set

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **objects: Any,
    ) -> None:
        """Take over the optimizer's learning rates.

        Raises:
            ValueError: There is a metric, but no evaluation during training.
            RuntimeError: The Trainer's scheduler cannot be replaced.
        """
        strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
        if self.metric is not None and strategy == "no":
            raise ValueError(
                f"metric={self.metric!r} needs evaluations: pass eval_strategy='steps' "
                "or 'epoch' to TrainingArguments, or no metric"
            )
        if hasattr(self, "controller"):
            self.controller.detach()  # from a training that was cut off
        self._training, self._reported, self._seen = True, False, {}
        scheduler = _plain_scheduler(objects["lr_scheduler"])
        run = ControlledRun(
            _plain_optimizer(objects["optimizer"]),
            state.max_steps,
            state.global_step,
            vars(scheduler).pop(SAVED, None),
            mode="max" if self.greater_is_better else "min",
            undo=objects["model"] if self.undo else (),
            **self.settings,
        )
        self.controller = run.controller
        scheduler.__class__ = _ControlledScheduler
        vars(scheduler)["controlled_run"] = run
        if not self.controller.dry_run:
            _replace_factors(scheduler, self.controller)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **objects: Any,
    ) -> None:
        """Pass the metric to the controller.

        Raises:
            ValueError: No evaluation reports the metric.
        """
        if self.metric is None or not self._training:
            return
        metrics = metrics or {}
        if self.metric not in metrics:
            if not self._reported:
                self._note_others(metrics)
            return
        self._reported = True
        self.controller.step(metrics[self.metric])
        if not self.controller.dry_run:  # the Trainer logs the scheduler's last value
            scheduler = _plain_scheduler(objects["lr_scheduler"])
            scheduler._last_lr = self.controller.get_last_lr()

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **objects: Any,
    ) -> None:
        """Stop controlling the optimizer."""
        self.controller.detach()
        self._training = False
        if self.metric is not None and not self._reported:
            warnings.warn(
                f"the controller saw no evaluation: none reported {self.metric!r}; "
                f"reported were: {self._others()}",
                stacklevel=2,
            )

    def _note_others(self, metrics: dict[str, float]) -> None:
        """Remember what an evaluation without the metric reports.

        Raises:
            ValueError: All evaluation sets were evaluated, and none reports the metric.
        """
        ending = "_runtime"  # every evaluation set has such an entry
        sets = [n.removesuffix(ending) for n in metrics if n.endswith(ending)]
        if not sets or sets[0].split("_")[0] != PREFIX:
            return  # someone evaluates something else
        repeated = sets[0] in self._seen
        self._seen[sets[0]] = list(metrics)
        if repeated or sets[0] == PREFIX:  # that of a Trainer with one set
            raise ValueError(
                f"metric must be one of {self._others()}; got {self.metric!r}"
            )

    def _others(self) -> str:
        names = (name for metrics in self._seen.values() for name in metrics)
        return ", ".join(names) or "none"


class _ControlledScheduler(LambdaLR):
    """The Trainer's scheduler; its state in checkpoints holds the controller's."""

    controlled_run: ControlledRun

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        run: ControlledRun = state.pop("controlled_run")
        return state | {SAVED: run.state_dict()}


def _plain_optimizer(optimizer: Any) -> Optimizer:  # noqa: ANN401 - may be wrapped
    """Return the torch optimizer inside accelerate's wrapper."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(inner, Optimizer):
        raise RuntimeError(
            f"the controller needs a torch optimizer, got {type(inner).__name__}"
        )
    return inner


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


def _replace_factors(scheduler: LambdaLR, controller: ControllerLR) -> None:
    """Make the Trainer's scheduler set and log the controller's learning rates."""

    def factor(group: int) -> Callable[[int], float]:
        base = float(scheduler.base_lrs[group])
        return lambda _: float(controller.get_last_lr()[group]) / base if base else 1.0

    scheduler.lr_lambdas = [factor(i) for i in range(len(scheduler.base_lrs))]
    scheduler._last_lr = controller.get_last_lr()
