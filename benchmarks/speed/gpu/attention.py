"""Training with one kind of attention, in a separate process.

`LR_GYM_ATTENTION` is read when the model is imported, so each kind needs a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.paths import ROOT
from benchmarks.speed.timing import spread, timed
from lr_gym import Corpus, PopulationTrainer, TrainingConfig, load_corpus
from lr_gym.files import data_folder
from lr_gym.random_streams import fold_in

VARIABLE = "LR_GYM_ATTENTION"


def in_subprocess(
    kind: str, config: TrainingConfig, *, size: int, updates: int, rounds: int
) -> dict[str, Any]:
    """Train a population with ``plain`` or ``fused`` attention.

    Args:
        kind: Value of `LR_GYM_ATTENTION`.
        config: The training of each member.
        size: E, members.
        updates: Updates per round; the first round is not timed.
        rounds: Timed rounds, at least 1.

    Returns:
        ``attention``: the kind that was used. ``losses``: the mean training loss of
        the last round, (E,). ``tokens_per_second``: median, minimum and maximum.

    Raises:
        RuntimeError: The process failed; the message has its last lines.
    """
    request = {
        "config": asdict(config),
        "size": size,
        "updates": updates,
        "rounds": rounds,
    }
    environment = {**os.environ, VARIABLE: kind}
    folder = data_folder()
    if folder is not None:
        environment["LR_GYM_DATA"] = str(folder.resolve())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.gpu.attention", json.dumps(request)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{VARIABLE}={kind} failed:\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Train as a request of `in_subprocess` says."""
    config = TrainingConfig(**request["config"])
    size, updates = request["size"], request["updates"]
    trainer = PopulationTrainer(config, load_corpus(config.corpus), size)
    trainer.reset(range(size), range(size))
    rates = np.full(size, config.learning_rate)
    call = partial(trainer.train, updates, rates)
    _, losses = timed(call, trainer.device)
    durations = []
    for _ in range(request["rounds"]):
        seconds, losses = timed(call, trainer.device)
        durations.append(seconds)
    tokens = size * updates * config.batch_size * config.block_size
    from lr_gym.models import dropout_attention

    return {
        "attention": dropout_attention.ATTENTION,
        "losses": losses.tolist(),
        "tokens_per_second": spread(tokens / seconds for seconds in durations),
    }


def first_gradients(
    kind: str, config: TrainingConfig, corpus: Corpus, size: int
) -> Tensor:
    """Return the gradients of a population's first update, (`size`, P) float32.

    Args:
        kind: ``plain`` or ``fused``.
        config: The training of each member.
        corpus: The text.
        size: Members, with seeds from 0.
    """
    from lr_gym.models import dropout_attention

    trainer = PopulationTrainer(config, corpus, size)
    trainer.reset(range(size), range(size))
    loss, device = trainer.population_loss, trainer.device
    length = config.block_size + 1
    count = size * config.batch_size * length
    windows = torch.from_numpy(corpus.train[:count].astype(np.int64)).to(device)
    keys = fold_in(
        torch.arange(size, device=device)[:, None],
        torch.arange(loss.dropout_sites, device=device),
    )
    before, dropout_attention.ATTENTION = dropout_attention.ATTENTION, kind
    try:
        _, gradients = loss.gradients(
            trainer.state_dict()["parameters"], windows.view(size, -1, length), keys
        )
    finally:
        dropout_attention.ATTENTION = before
    return gradients.float()


def kernel_errors(
    members: int,
    batch: int,
    heads: int,
    time: int,
    size: int,
    probability: float,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """Return the errors of the kernels' outputs, log-sum-exps and gradients.

    An error is the norm of the difference from plain matrix products in float64,
    divided by their norm. On a CPU the kernels need Triton's interpreter.
    """
    from lr_gym.models import dropout_attention, fused_attention

    generator = torch.Generator().manual_seed(0)
    width = heads * size
    padded = torch.randn(members * batch, time + 3, 3 * width + 16, generator=generator)
    padded = padded.to(device, dtype)
    qkv = padded[:, 1 : time + 1, : 3 * width]  # not contiguous
    dy = torch.randn(members * batch, time, width, generator=generator)
    dy = dy.to(device, dtype)
    keys = fold_in(torch.arange(members).unsqueeze(1), torch.arange(3))[:, 1]
    keys = keys.to(device)

    y, lse = fused_attention.forward(qkv, keys, heads, probability)
    dqkv = fused_attention.backward(qkv, keys, y, lse, dy, heads, probability)
    actual = dict(zip(("dq", "dk", "dv"), dqkv.chunk(3, -1), strict=True))
    actual |= {"y": y, "lse": lse}

    qkv, keys, dy = qkv.cpu().double(), keys.cpu(), dy.cpu().double()
    y, lse = dropout_attention._forward(qkv, keys, heads, probability)
    dqkv = dropout_attention._backward(qkv, keys, y, lse, dy, heads, probability)
    expected = dict(zip(("dq", "dk", "dv"), dqkv.chunk(3, -1), strict=True))
    expected |= {"y": y, "lse": lse}
    return {name: _relative_error(actual[name], x) for name, x in expected.items()}


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.cpu().double() - expected).norm() / expected.norm())


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
