"""Further checks of `correct.py`: environments, text generation, controller.

An environment on the device is compared with the same environment on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from benchmarks.speed import variants
from benchmarks.speed.gpu import attention
from benchmarks.speed.gpu.checks import Check, check_bound, skipped_check
from benchmarks.speed.gpu.session import Session
from benchmarks.speed.plain_loop import PlainLoop
from lr_gym import PopulationTrainer, load_corpus
from lr_gym.controllers import ControllerLR
from lr_gym.trainers.base import FloatArray

LOSS_TOLERANCE = 1e-4  # nats; see correct.py
LEARNING_TOLERANCE = 0.1  # nats; a loop that learns worse is off by more
# Relative. In Triton's interpreter the errors are 3e-7 and 0.0064.
KERNEL_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6}
GRADIENT_TOLERANCE = 2.0**-6  # relative; measured 0.005 with either attention
LOGIT_TOLERANCE = 1e-3  # of a greedy character, below the largest logit
ENV_ID = "LRTuning-markov-v0"


def checks(session: Session) -> dict[str, Callable[[], Check]]:
    """Return the checks by name."""
    return {
        "undo through the environment": partial(undo, session),
        "vector environment": partial(vector_env, session),
        "generation": partial(generation, session),
        "controller, autocast and GradScaler": partial(controller, session),
        "attention kernels, float32": partial(kernels, session, torch.float32),
        "attention kernels, bfloat16": partial(kernels, session, torch.bfloat16),
        "gradients with fused attention": partial(gradients, session, "fused"),
        "gradients with plain attention": partial(gradients, session, "plain"),
        "learning with fused attention": partial(learning, session, "fused"),
        "learning with plain attention": partial(learning, session, "plain"),
    }


def _settings(session: Session, device: str | torch.device) -> dict[str, Any]:
    short = {
        "n_layer": 1,
        "max_iters": 8,
        "eval_interval": 2,
        "warmup_iters": 0,
        "eval_tokens": 256,
        "precision": "float32",
        "compile": "off",
    }
    return {"scale": "tiny", **session.settings, **short, "device": str(device)}


def undo(session: Session) -> Check:
    """Compare the undo action on the device and on the CPU."""
    losses = []
    for device in (session.device, "cpu"):
        settings = _settings(session, device)
        env = gym.make(ENV_ID, allow_undo=True, **settings)
        env.reset(seed=0)
        undo_action = env.get_wrapper_attr("episodes").config.undo_action
        losses.append([env.step(action)[0][0] for action in (1, 2, undo_action, 1)])
        env.close()
    return check_bound(_max_difference(*losses), LOSS_TOLERANCE)


def vector_env(session: Session) -> Check:
    """Compare three members of one population with three single environments."""
    settings = _settings(session, session.device)
    envs = gym.make_vec(ENV_ID, num_envs=3, **settings)
    first, _ = envs.reset(seed=0)
    population = [first] + [envs.step(np.array([0, 1, 2]))[0] for _ in range(4)]
    envs.close()
    singles = []
    for member in range(3):
        env = gym.make(ENV_ID, **settings)
        rows = [env.reset(seed=member)[0]]
        rows += [env.step(member)[0] for _ in range(4)]
        env.close()
        singles.append(rows)
    return check_bound(
        _max_difference(population, np.swapaxes(singles, 0, 1)), LOSS_TOLERANCE
    )


def generation(session: Session) -> Check:
    """Check that each greedy character of the device is likeliest on the CPU, too."""
    config = session.configure(
        "tiny", "markov", n_layer=1, precision="float32", compile="off"
    )
    trainer = PopulationTrainer(config, load_corpus("markov"), 1)
    trainer.train(20, [config.learning_rate])
    model = trainer.model(0)
    prompt = torch.zeros((2, 1), dtype=torch.int64, device=session.device)
    count = config.block_size - 1
    text = model.generate(prompt, count, top_k=1)
    with torch.no_grad():
        logits = model.to("cpu")(text.cpu()[:, :-1])  # (2, T, V)
    chosen = logits.gather(2, text.cpu()[:, 1:, None])[..., 0]
    return check_bound(
        float((logits.max(dim=2).values - chosen).max()), LOGIT_TOLERANCE
    )


def controller(session: Session) -> Check:
    """Check that `ControllerLR` sets the LR in mixed precision, and the loss falls."""
    device = session.device
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 1)).to(device)
    inputs = torch.randn(256, 16, device=device)
    targets = inputs.sum(dim=1, keepdim=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    updates = 60
    scheduler = ControllerLR(optimizer, updates, undo=model)
    scaler = torch.amp.GradScaler(device.type)

    def loss_of() -> torch.Tensor:
        with torch.autocast(device.type, dtype):
            predicted = model(inputs)
        return nn.functional.mse_loss(predicted.float(), targets)

    losses, unequal = [float(loss_of().detach())], 0
    for _ in range(2 * updates):  # the scaler skips updates that overflow
        if scheduler.last_epoch == updates:
            break
        if scheduler.last_epoch % 10 == 0:
            scheduler.step(float(loss_of().detach()))
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(loss_of()))
        unequal += optimizer.param_groups[0]["lr"] != scheduler.get_last_lr()[0]
        scaler.step(optimizer)
        scaler.update()
    losses.append(float(loss_of().detach()))
    measured = {
        "updates that are missing": float(updates - scheduler.last_epoch),
        "rates that are not the controller's": float(unequal),
        "final loss over first, above 1": max(0.0, losses[1] / losses[0] - 1.0),
    }
    return check_bound(measured, 0.0) | {"losses": losses}


def gradients(session: Session, kind: str) -> Check:
    """Compare a gradient in bfloat16 at paper scale with plain attention's in float32.

    The weights are a run's first. The error is relative to the norm of the gradient.
    """
    if session.device.type != "cuda":
        return skipped_check("the kernels are for CUDA")
    config = session.configure("paper", compile="off", precision="bfloat16")
    exact = replace(config, precision="float32")
    (expected,) = attention.first_gradients("plain", exact, session.corpus, 1)
    (ours,) = attention.first_gradients(kind, config, session.corpus, 1)
    error = float((ours - expected).norm() / expected.norm())
    return check_bound(error, GRADIENT_TOLERANCE)


def kernels(session: Session, dtype: torch.dtype) -> Check:
    """Compare outputs and gradients of the kernels with exact ones, at paper shape."""
    if session.device.type != "cuda":
        return skipped_check("a test tries the kernels in Triton's interpreter")
    errors = attention.kernel_errors(2, 2, 6, 256, 64, 0.2, dtype, session.device)
    return check_bound(errors, KERNEL_TOLERANCES[dtype])


def learning(session: Session, kind: str) -> Check:
    """Check that 600 updates at paper scale bring the loss as low as nanoGPT's loop.

    Both start from other weights and read other batches. So the mean training losses
    of the last 100 updates differ by chance, and may be lower.
    """
    config = session.configure("paper", compile="off", learning_rate=1e-3)
    updates, rounds = session.pick((100, 5), (2, 1))
    ours = attention.in_subprocess(kind, config, size=1, updates=updates, rounds=rounds)
    loop = PlainLoop(
        config,
        session.corpus,
        session.folder,
        precision=variants.resolved_precision(config),
    )
    loop.train(updates * rounds, config.learning_rate)
    losses = [loop.train(1, config.learning_rate) for _ in range(updates)]
    gap = ours["losses"][0] - fmean(losses)
    return check_bound(gap, LEARNING_TOLERANCE) | {
        "ours": ours["losses"][0],
        "plain loop": fmean(losses),
    }


def _max_difference(one: Any, other: Any) -> float:  # noqa: ANN401 - array likes
    difference: FloatArray = np.abs(np.asarray(one) - np.asarray(other))
    return float(difference.max())
