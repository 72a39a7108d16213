"""The controller in the Trainer of transformers, on a tiny GPT-2."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import lr_gym
from lr_gym.controllers.integrations.huggingface import LRControllerCallback

UPDATES = 30


class Windows(Dataset[dict[str, Any]]):
    """Windows of the Markov corpus."""

    def __init__(self, tokens: Any, count: int) -> None:
        self.rows = torch.from_numpy(tokens[: count * 16].astype("int64")).view(-1, 16)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


class Rates(TrainerCallback):
    """Records the learning rates that the optimizer uses."""

    def __init__(self) -> None:
        self.used: list[float] = []
        self.scheduled: list[float] = []  # before each update

    def on_train_begin(self, *_: Any, **objects: Any) -> None:
        self.scheduler = objects["lr_scheduler"]
        objects["optimizer"].optimizer.register_step_pre_hook(self._read)

    def _read(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == second
        self.used.append(first)
        self.scheduled.append(self.scheduler.get_last_lr()[0])


class At(TrainerCallback):
    """Does something after an update."""

    def __init__(self, update: int, action: Any) -> None:
        self.update, self.action = update, action

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        if state.global_step == self.update:
            self.action(objects)


def make_trainer(
    folder: Path,
    *callbacks: TrainerCallback,
    dtype: torch.dtype = torch.float32,
    sets: tuple[str, ...] = (),
    **arguments: Any,
) -> Trainer:
    text = lr_gym.load_corpus("markov")
    set_seed(0)
    config = GPT2Config(
        vocab_size=text.vocab_size,
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,  # evaluations change the random stream
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": UPDATES,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    val = Windows(text.val, 16)
    model: Any = GPT2LMHeadModel(config)
    return Trainer(
        model=model.to(dtype),
        args=TrainingArguments(**(defaults | arguments)),
        train_dataset=Windows(text.train, 48),
        eval_dataset=dict.fromkeys(sets, val) if sets else val,
        callbacks=list(callbacks),
    )


def logged(trainer: Trainer, name: str) -> list[float]:
    return [log[name] for log in trainer.state.log_history if name in log]


EVERY_5: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 5}


def test_rates_do_not_need_evaluations_and_are_logged(tmp_path: Path) -> None:
    used = []
    for arguments in (
        {"lr_scheduler_type": "linear", "warmup_steps": 10},
        {"lr_scheduler_type": "cosine", "eval_strategy": "epoch"},
        EVERY_5,
    ):
        callback, rates = LRControllerCallback(), Rates()
        trainer = make_trainer(tmp_path, callback, rates, **arguments)
        trainer.train()
        assert rates.used == callback.controller.used_learning_rates().tolist()
        assert rates.scheduled == pytest.approx(rates.used, rel=1e-12)
        assert logged(trainer, "learning_rate") == pytest.approx(rates.used, rel=1e-12)
        used.append(rates.used)
    assert used[0] == pytest.approx(used[1], rel=1e-4)
    assert used[0] == pytest.approx(used[2], rel=1e-4)
    assert used[0][0] == pytest.approx(0.1 / 300), "without the Trainer's warm-up"
    assert max(used[0]) > 1.2 * used[0][0]
    assert used[0][-1] == pytest.approx(max(used[0]) / 9), "the end of the cooldown"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "arguments"),
    [
        (torch.float32, {"gradient_accumulation_steps": 2}),
        (torch.bfloat16, {}),
        (torch.float32, {"bf16": True}),
        (torch.float32, {"max_steps": -1, "num_train_epochs": 2}),
    ],
)
def test_other_ways_to_train(
    dtype: torch.dtype, arguments: dict[str, Any], tmp_path: Path
) -> None:
    callback, rates = LRControllerCallback(), Rates()
    trainer = make_trainer(tmp_path, callback, rates, dtype=dtype, **arguments)
    trainer.train()
    controller = callback.controller
    assert len(rates.used) == controller.last_epoch == controller.total_steps
    assert rates.used == controller.used_learning_rates().tolist()
    assert max(rates.used) > 1.2 * rates.used[0]
    losses = logged(trainer, "loss")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("metric", ["loss", "eval_loss"])
def test_the_controller_sees_the_metric(metric: str, tmp_path: Path) -> None:
    callback = LRControllerCallback(metric)
    trainer = make_trainer(tmp_path, callback, eval_on_start=True, **EVERY_5)
    trainer.train()
    history = callback.controller.history
    assert [record.iteration for record in history] == list(range(0, UPDATES + 1, 5))
    assert [record.val_loss for record in history] == logged(trainer, "eval_loss")
    trainer.evaluate()
    assert len(history) == 7, "evaluations after training do not count"


def test_damage_is_undone(tmp_path: Path) -> None:
    weights: list[list[torch.Tensor]] = []

    class Watch(TrainerCallback):
        def on_evaluate(self, *_: Any, **objects: Any) -> None:
            weights.append([w.detach().clone() for w in objects["model"].parameters()])

    @torch.no_grad()
    def damage(objects: dict[str, Any]) -> None:
        for weight in objects["model"].parameters():
            weight.mul_(30.0)

    callback = LRControllerCallback("loss", undo=True)
    arguments = EVERY_5 | {"eval_steps": 2}
    trainer = make_trainer(tmp_path, callback, Watch(), At(28, damage), **arguments)
    trainer.train()
    undone = [record.undone for record in callback.controller.history]
    assert undone == [False] * 13 + [True, False]
    assert all(map(torch.equal, weights[12], weights[13]))


def test_one_of_several_evaluation_sets_is_chosen(tmp_path: Path) -> None:
    callback = LRControllerCallback("b_loss", greater_is_better=True)
    trainer = make_trainer(tmp_path, callback, sets=("a", "b"), **EVERY_5)

    def evaluate(_: object) -> None:
        trainer.evaluate(trainer.train_dataset, metric_key_prefix="test")

    trainer.add_callback(At(2, evaluate))
    trainer.add_callback(At(4, evaluate))
    trainer.train()
    history = callback.controller.history
    assert [record.iteration for record in history] == list(range(5, UPDATES + 1, 5))
    assert callback.controller.best == max(logged(trainer, "eval_b_loss"))


def test_a_metric_that_nothing_reports_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, LRControllerCallback("bleu"), **EVERY_5)
    with pytest.raises(ValueError, match=r"one of eval_loss, .*; got 'eval_bleu'"):
        trainer.train()
    assert trainer.state.global_step == 5, "at the first evaluation"
    callback = LRControllerCallback("loss")
    trainer = make_trainer(tmp_path, callback, sets=("a", "b"), **EVERY_5)
    with pytest.raises(ValueError, match=r"eval_a_loss, .*eval_b_loss, .* 'eval_loss'"):
        trainer.train()
    assert trainer.state.global_step == 10, "when a set comes again"
    arguments = EVERY_5 | {"eval_steps": 100, "max_steps": 3}
    callback = LRControllerCallback("loss")
    trainer = make_trainer(tmp_path, callback, sets=("a", "b"), **arguments)
    with pytest.warns(UserWarning, match="saw no evaluation: none reported 'eval_loss"):
        trainer.train()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="undo=True needs a metric"):
        LRControllerCallback(undo=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'policy'"):
        LRControllerCallback(policy="default")
    with pytest.raises(TypeError, match="metric must be a metric's name or None"):
        LRControllerCallback(3)  # type: ignore[arg-type]  # wrong on purpose
    trainer = make_trainer(tmp_path, LRControllerCallback("loss"))
    with pytest.raises(ValueError, match="'eval_loss' needs evaluations: pass eval_st"):
        trainer.train()
    trainer = make_trainer(
        tmp_path,
        LRControllerCallback(),
        lr_scheduler_type="reduce_lr_on_plateau",
        **EVERY_5,
    )
    with pytest.raises(RuntimeError, match="ReduceLROnPlateau would also set the lear"):
        trainer.train()


def test_a_foreign_change_of_the_learning_rate_raises(tmp_path: Path) -> None:
    def change(objects: dict[str, Any]) -> None:
        objects["optimizer"].param_groups[0]["lr"] = 1e-3

    trainer = make_trainer(tmp_path, LRControllerCallback(), At(6, change))
    with pytest.raises(RuntimeError, match="something else changed the learning rate"):
        trainer.train()


def test_a_trainer_trains_again(tmp_path: Path) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    callback, rates = LRControllerCallback(), Rates()
    trainer = make_trainer(tmp_path, callback, rates, At(7, interrupt), max_steps=10)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(At)
    trainer.remove_callback(Rates)
    for _ in range(2):  # after an interruption, and after a whole training
        trainer.train()
        controller = callback.controller
        assert controller.last_epoch == 10
        assert controller.used_learning_rates()[0] == pytest.approx(0.1 / 300)
        assert logged(trainer, "learning_rate") == pytest.approx(
            controller.used_learning_rates()
        )


@pytest.mark.filterwarnings("ignore:.*batch size")
@pytest.mark.slow
def test_the_trainer_finds_a_batch_size(tmp_path: Path) -> None:
    failed: list[bool] = []

    def fail(_: object) -> None:
        if not failed:
            failed.append(True)
            raise RuntimeError("CUDA out of memory.")

    callback = LRControllerCallback()
    arguments: dict[str, Any] = {"auto_find_batch_size": True, "max_steps": 8}
    trainer = make_trainer(tmp_path, callback, At(5, fail), **arguments)
    trainer.train()
    controller = callback.controller
    assert controller.last_epoch == 8
    assert controller.used_learning_rates()[0] == pytest.approx(0.1 / 300)


@pytest.mark.parametrize("update", [15, 24])  # in the hold, and in the cooldown
def test_a_resumed_trainer_uses_the_same_rates(update: int, tmp_path: Path) -> None:
    whole = Rates()
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": update}
    callback = LRControllerCallback("loss", undo=True)
    make_trainer(tmp_path, callback, whole, **settings, **EVERY_5).train()
    moved = tmp_path / "moved"
    shutil.move(tmp_path / f"checkpoint-{update}", moved)

    rest, callback = Rates(), LRControllerCallback("loss", undo=True)
    arguments = (
        settings | EVERY_5 | {"learning_rate": 1.0, "output_dir": str(tmp_path / "b")}
    )
    trainer = make_trainer(tmp_path, callback, rest, **arguments)
    trainer.train(resume_from_checkpoint=str(moved))
    assert rest.used == whole.used[update:]
    assert logged(trainer, "learning_rate") == pytest.approx(whole.used, rel=1e-12)


def test_a_checkpoint_without_a_controller_is_continued(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}
    make_trainer(tmp_path, max_steps=10, warmup_steps=5, **settings).train()
    whole = Rates()
    trainer = make_trainer(tmp_path, LRControllerCallback(), whole, **settings)
    with pytest.warns(UserWarning, match="the 20 updates that are left as its whole"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert whole.used[0] == pytest.approx(0.1 / 300)
    assert whole.used[-1] == pytest.approx(max(whole.used) / 6)

    rest = Rates()  # from a checkpoint of the continued run
    trainer = make_trainer(tmp_path, LRControllerCallback(), rest, **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-25"))
    assert rest.used == whole.used[15:]


@pytest.mark.slow
def test_a_dry_run_leaves_the_trainer_alone(tmp_path: Path) -> None:
    plain, watched = Rates(), Rates()
    make_trainer(tmp_path, plain, warmup_steps=5).train()
    callback = LRControllerCallback("loss", dry_run=True)
    make_trainer(tmp_path, callback, watched, warmup_steps=5, **EVERY_5).train()
    assert plain.used == watched.used
    assert len(callback.controller.history) == 6
    assert math.isfinite(callback.controller.used_learning_rates().sum())
