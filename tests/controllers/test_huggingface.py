"""The controller in the Trainer of transformers, on a tiny GPT-2."""

from __future__ import annotations

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
from lr_gym.controllers import PolicyLR
from lr_gym.controllers.integrations.huggingface import STATE_FILE, LRControllerCallback


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

    def on_train_begin(self, *_: Any, **objects: Any) -> None:
        objects["optimizer"].optimizer.register_step_pre_hook(self._read)

    def _read(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == second
        self.used.append(first)


def make_trainer(
    folder: Path,
    callback: TrainerCallback,
    rates: Rates | None = None,
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
        bos_token_id=0,
        eos_token_id=0,
    )
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 40,
        "per_device_train_batch_size": 4,
        "learning_rate": 1.0,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "eval_on_start": True,
        "save_steps": 1_000,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(**(defaults | arguments)),
        train_dataset=Windows(text.train, 400),
        eval_dataset=Windows(text.val, 16),
        callbacks=[callback] + ([rates] if rates else []),
    )


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
def test_the_trainer_uses_the_rates_that_the_controller_decided(
    tmp_path: Path, scheduler: str
) -> None:
    callback, rates = LRControllerCallback(), Rates()
    trainer = make_trainer(
        tmp_path, callback, rates, lr_scheduler_type=scheduler, warmup_steps=10
    )
    trainer.train()
    controller: PolicyLR = callback.controller
    assert rates.used == controller.used_learning_rates().tolist()
    assert len(set(rates.used)) > 5
    assert rates.used[0] == pytest.approx(1 / 300), "without the Trainer's warm-up"
    decided = [record.iteration for record in controller.history]
    assert decided == list(range(0, 40, 4))
    losses = [
        log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log
    ]
    assert losses[:10] == [record.val_loss for record in controller.history]
    logged = [
        log["learning_rate"]
        for log in trainer.state.log_history
        if "learning_rate" in log
    ]
    assert logged == pytest.approx(rates.used), "the Trainer logs them"


def test_an_undo_puts_the_trainers_weights_back(tmp_path: Path) -> None:
    callback = LRControllerCallback(max_lr=1e4)

    class Watch(TrainerCallback):
        """Records the weights at every evaluation."""

        weights: list[Any] = []  # noqa: RUF012 - each instance sets its own

        def on_evaluate(self, *_: Any, **objects: Any) -> None:
            self.weights.append(
                [p.detach().clone() for p in objects["model"].parameters()]
            )

    before, after = Watch(), Watch()
    before.weights, after.weights = [], []
    trainer = make_trainer(tmp_path, before, learning_rate=300.0)
    trainer.add_callback(callback)
    trainer.add_callback(after)
    trainer.train()
    undone = [i for i, r in enumerate(callback.controller.history) if r.undone]
    assert undone
    for i in undone:
        assert not all(map(torch.equal, before.weights[i], after.weights[i]))
        assert all(map(torch.equal, after.weights[i - 1], after.weights[i]))


def test_a_resumed_trainer_uses_the_same_rates(tmp_path: Path) -> None:
    whole = Rates()
    callback = LRControllerCallback(max_lr=1e4)
    make_trainer(tmp_path / "whole", callback, whole, learning_rate=300.0).train()
    assert any(record.undone for record in callback.controller.history)

    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 26:
                raise KeyboardInterrupt

    folder = tmp_path / "cut"
    first, second = Rates(), Rates()
    settings: dict[str, Any] = {"learning_rate": 300.0, "save_steps": 22}
    trainer = make_trainer(folder, LRControllerCallback(max_lr=1e4), first, **settings)
    trainer.add_callback(Kill())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    checkpoint = folder / "checkpoint-22"
    assert (checkpoint / STATE_FILE).is_file()

    resumed = LRControllerCallback(max_lr=1e4)
    trainer = make_trainer(folder, resumed, second, **settings)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert first.used[:22] + second.used == whole.used
    assert resumed.controller.history == callback.controller.history

    (checkpoint / STATE_FILE).rename(tmp_path / STATE_FILE)
    trainer = make_trainer(folder, LRControllerCallback(max_lr=1e4), **settings)
    with pytest.raises(
        RuntimeError, match="pass the folder of that checkpoint as resume_from"
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    elsewhere = LRControllerCallback(max_lr=1e4, resume_from=tmp_path)
    trainer = make_trainer(folder, elsewhere, **settings)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert elsewhere.controller.history == callback.controller.history


def test_a_trainer_trains_twice(tmp_path: Path) -> None:
    callback = LRControllerCallback()
    trainer = make_trainer(tmp_path, callback, max_steps=4)
    trainer.train()
    first = callback.controller
    trainer.train()
    assert callback.controller is not first
    assert callback.controller.iteration == first.iteration == 4


def test_a_wrong_trainer_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, LRControllerCallback(), eval_strategy="no")
    with pytest.raises(ValueError, match="decides at evaluations: pass eval_strategy"):
        trainer.train()
    trainer = make_trainer(
        tmp_path, LRControllerCallback(), lr_scheduler_type="reduce_lr_on_plateau"
    )
    with pytest.raises(
        RuntimeError, match="ReduceLROnPlateau would also set the learn"
    ):
        trainer.train()
    trainer = make_trainer(tmp_path, LRControllerCallback(metric="eval_bleu"))
    with pytest.raises(ValueError, match=r"metric must be one of eval_.*'eval_bleu'"):
        trainer.train()


def test_a_foreign_change_of_the_learning_rate_raises(tmp_path: Path) -> None:
    class ChangeLearningRate(TrainerCallback):
        def on_step_end(
            self, args: Any, state: Any, control: Any, **objects: Any
        ) -> None:
            if state.global_step == 6:
                objects["optimizer"].param_groups[0]["lr"] = 1e-3

    trainer = make_trainer(tmp_path, LRControllerCallback())
    trainer.add_callback(ChangeLearningRate())
    with pytest.raises(RuntimeError, match="something else changed the learning rate"):
        trainer.train()


def test_a_dry_run_leaves_the_trainer_alone(tmp_path: Path) -> None:
    plain, watched = Rates(), Rates()
    make_trainer(tmp_path, plain, warmup_steps=5, learning_rate=1e-3).train()
    callback = LRControllerCallback(dry_run=True)
    make_trainer(
        tmp_path, callback, watched, warmup_steps=5, learning_rate=1e-3
    ).train()
    assert plain.used == watched.used
    assert len(callback.controller.history) == 10
