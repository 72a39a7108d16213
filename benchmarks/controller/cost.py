"""What `ControllerLR` costs: time and memory, during the climb and after it.

    python -m benchmarks.controller.cost
    python -m benchmarks.controller.cost --cases paper --device cuda

Two kinds of cases. ``10M``, ``100M`` and ``500M`` are AdamW on the weight shapes of a
transformer, with random gradients: only `optimizer.step()` is timed. ``tiny``, ``mini``
and ``paper`` are whole iterations of a plain PyTorch loop with a GPT.

Each turn times an update without a controller, one during its climb and one after it,
a copy of model and optimizer, as every evaluation with `undo` makes, and an undo. Small
differences between updates drown in noise, so the controller's hooks are also timed by
themselves, within those updates.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from agents.command_line import parse_command_line
from benchmarks.results_file import update_result
from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.timing import spread, synchronize, timed
from lr_gym import load_corpus, preset
from lr_gym.controllers import ControllerLR
from lr_gym.controllers.snapshots import DEVICES, Snapshot

Case = Literal["10M", "100M", "500M", "tiny", "mini", "paper"]
CLIMBING = 100  # total_steps of a run, the second update of which is in the climb
CLIMBED = 5  # ... and is after the climb
RATE = 1e-5  # small, so the weights stay as they are
SAMPLES = 4  # of each weight at most: weight, gradient, last change and the new one


@dataclass(frozen=True)
class Stack:
    """The weight shapes of a GPT without biases.

    Attributes:
        width: Of the residual stream.
        layers: Transformer blocks.
        vocabulary: Rows of the tied embedding.
        dtype: Number format of weights, gradients and AdamW's moments.
    """

    width: int
    layers: int
    vocabulary: int
    dtype: torch.dtype = torch.float32

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """Yield the shapes of all weights."""
        c = self.width
        yield from ((self.vocabulary, c), (1024, c))
        for _ in range(self.layers):
            yield from ((c,), (3 * c, c), (c, c), (c,), (4 * c, c), (c, 4 * c))
        yield (c,)


STACKS = {
    "10M": Stack(320, 8, 256),
    "100M": Stack(768, 9, 50_257),
    # In float32, weights, moments, a copy and an undo need 18 GB.
    "500M": Stack(1280, 22, 50_257, torch.bfloat16),
}


@dataclass
class Args:
    """Time the parts of the controller."""

    cases: tuple[Case, ...] = ("10M", "100M", "500M", "mini")
    """Weights of `optimizer.step()` alone, or the scale of a GPT in a whole loop."""
    env: str = "markov"
    """Text of the GPTs: markov, shakespeare, enwik8, text8, or a path."""
    repeats: int = 11
    """Timed turns."""
    threads: int = 1
    """Threads of torch."""
    device: str = "cpu"
    """cpu or cuda."""
    out: Path = Path("benchmarks/results/controller/controller_cost.json")
    """The result file. Results of other cases stay in it."""


class HookTimer:
    """Times the hooks of an optimizer that are registered between two `stamp` calls."""

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        """Choose the optimizer, and the device to wait for."""
        self.optimizer = optimizer
        self.device = device
        self._times: list[float] = []
        self._hooks: list[RemovableHandle] = []

    def stamp(self) -> None:
        """Register hooks that note the time before and after every update."""
        self._hooks += [
            self.optimizer.register_step_pre_hook(self._note_time),
            self.optimizer.register_step_post_hook(self._note_time),
        ]

    def last_seconds(self) -> float:
        """Return what the hooks between the stamps took in the last update."""
        before, prepared, updated, after = self._times[-4:]
        return prepared - before + after - updated

    def remove(self) -> None:
        """Remove the hooks of `stamp`."""
        for hook in self._hooks:
            hook.remove()

    def _note_time(self, *_: object) -> None:
        synchronize(self.device)
        self._times.append(time.perf_counter())


@dataclass
class Training:
    """What is timed: updates of `model` by `optimizer`."""

    model: nn.Module
    optimizer: Optimizer
    update: Callable[[], object]
    timed: str

    @property
    def device(self) -> torch.device:
        """The device of the first weight."""
        return next(self.model.parameters()).device


def stack_training(stack: Stack, device: str = "cpu") -> Training:
    """Return `optimizer.step()` of fused AdamW with random weights and gradients."""
    generator = torch.Generator(device).manual_seed(0)
    normal = partial(torch.randn, generator=generator, device=device, dtype=stack.dtype)
    model = nn.ParameterList(normal(shape).mul_(0.02) for shape in stack.shapes())
    for weight in model.parameters():
        weight.grad = normal(weight.shape).mul_(1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    return Training(model, optimizer, optimizer.step, "optimizer.step()")


def loop_training(scale: str, env: str, device: str, folder: Path) -> Training:
    """Return whole iterations of a plain PyTorch loop."""
    loop = PlainLoop(preset(scale, env, device=device), load_corpus(env), folder)

    def update() -> None:
        loop.train(1, float(loop.optimizer.param_groups[0]["lr"]))

    return Training(loop.model, loop.optimizer, update, "iteration")


def measure(training: Training, repeats: int) -> dict[str, Any]:
    """Return seconds, their ratios to those of a plain update, and bytes."""
    objects = (training.model, training.optimizer)
    devices = DEVICES if training.device.type == "cuda" else DEVICES[:1]
    snapshots = {device: Snapshot(objects, device) for device in devices}
    seconds: dict[str, list[float]] = {}
    sample_bytes = 0
    for turn in range(repeats + 1):
        times = {"update": _second_update(training)}
        for name, total_steps in (("in the climb", CLIMBING), ("after it", CLIMBED)):
            hooks = HookTimer(training.optimizer, training.device)
            hooks.stamp()
            controller = ControllerLR(training.optimizer, total_steps)
            hooks.stamp()
            times[f"update {name}"] = _second_update(training)
            times[f"hooks {name}"] = hooks.last_seconds()
            sample_bytes = max(sample_bytes, _sample_bytes(controller))
            controller.detach()
            hooks.remove()
            _reset_rates(training.optimizer)
        for device, snapshot in snapshots.items():
            times[f"snapshot, {device}"], _ = timed(snapshot.take, training.device)
            times[f"undo, {device}"], _ = timed(snapshot.restore, training.device)
        if turn:  # the first turn allocates memory
            for name, spent in times.items():
                seconds.setdefault(name, []).append(spent)
    plain = seconds["update"]
    weights = list(training.model.parameters())
    return {
        "timed": training.timed,
        "weights": sum(weight.numel() for weight in weights),
        "tensors": len(weights),
        "dtype": str(weights[0].dtype).removeprefix("torch."),
        "seconds": {name: spread(times) for name, times in seconds.items()},
        "in_updates": {
            name: spread(a / b for a, b in zip(times, plain, strict=True))
            for name, times in seconds.items()
            if name != "update"
        },
        "weight_bytes": sum(weight.nbytes for weight in weights),
        "sample_bytes": sample_bytes,
        "sample_bytes_within_an_update": SAMPLES * sample_bytes,
        "snapshot_bytes": snapshots["same"].bytes,
    }


def _second_update(training: Training) -> float:
    """Return the seconds of the second of two updates."""
    training.update()
    spent, _ = timed(training.update, training.device)
    return spent


def _sample_bytes(controller: ControllerLR) -> int:
    """Return the memory of the samples that the controller holds between updates."""
    groups = controller.state_dict()["meter"]["changes"] or ()
    return sum(x.nbytes for group in groups for x in group if x is not None)


def _reset_rates(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group["lr"] = RATE


def measure_case(case: Case, args: Args) -> dict[str, Any]:
    """Return the costs of one case."""
    if case in STACKS:
        return measure(stack_training(STACKS[case], args.device), args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        training = loop_training(case, args.env, args.device, Path(folder))
        return measure(training, args.repeats)


def main(args: Args) -> None:
    """Measure every case, write and print the results."""
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {}
    for case in args.cases:
        result = measure_case(case, args)
        results = update_result(args.out, case, result)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
