"""The cost of a controller's decision in a training loop, without the evaluation.

    python -m benchmarks.controller.cost
    python -m benchmarks.controller.cost --scale paper

Before each decision the default policy measures one update, which copies the weights.
At each decision the controller copies model and optimizer, so it can undo the next
chunk. Both are timed in turns with plain updates (`plain_loop.py`). Costs are in
updates: divided by the updates between decisions, they are the controller's share.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from agents.command_line import parse_command_line
from benchmarks.results_file import update_result
from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.timing import spread, timed
from lr_gym import load_corpus, preset
from lr_gym.controllers.snapshots import DEVICES, Snapshot
from lr_gym.controllers.update_size import UpdateSizeMeter


@dataclass
class Args:
    """Time the parts of a decision, in updates."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: tuple[Literal["paper", "mini", "tiny"], ...] = ("tiny", "mini")
    """Sizes of the model."""
    repeats: int = 21
    """Timed turns of each part."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("benchmarks/results/controller/controller_cost.json")
    """The result file. Results of other scales stay in it."""


def measure(env: str, scale: str, repeats: int) -> dict[str, Any]:
    """Return the seconds of an update, and all other costs in updates."""
    corpus = load_corpus(env)
    config = preset(scale, env)
    with tempfile.TemporaryDirectory() as folder:
        loop = PlainLoop(config, corpus, Path(folder))
        objects = (loop.model, loop.optimizer)
        snapshots = {device: Snapshot(objects, device) for device in DEVICES}
        meter = UpdateSizeMeter(loop.optimizer)
        update = partial(loop.train, 1, config.learning_rate)
        calls: dict[str, Callable[[], Any]] = {"update": update}
        for device, snapshot in snapshots.items():
            calls[f"snapshot, {device}"] = snapshot.take
            calls[f"undo, {device}"] = snapshot.restore
        calls["update, measured"] = partial(
            _measured_update, meter, update, loop.optimizer
        )
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(repeats + 1):
            for name, call in calls.items():
                spent, _ = timed(call, loop.device)
                if turn:  # the first turn allocates memory
                    seconds[name].append(spent)
        weights = sum(p.nbytes for p in loop.model.parameters())
        snapshot_bytes = snapshots["same"].bytes
    plain = seconds["update"]
    return {
        "update_seconds": spread(plain),
        "in_updates": {
            name: spread(a / b for a, b in zip(times, plain, strict=True))
            for name, times in seconds.items()
            if name != "update"
        },
        "snapshot_bytes": snapshot_bytes,
        "snapshot_bytes_per_byte_of_weights": snapshot_bytes / weights,
    }


def _measured_update(
    meter: UpdateSizeMeter,
    update: Callable[[], object],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Make one update and measure it by optimizer hooks, as `PolicyLR` does."""
    hooks = (
        optimizer.register_step_pre_hook(lambda *_: meter.before_update()),
        optimizer.register_step_post_hook(lambda *_: meter.after_update()),
    )
    try:
        update()
    finally:
        for hook in hooks:
            hook.remove()


def main(args: Args) -> None:
    """Measure every scale, write and print the results."""
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {}
    for scale in args.scale:
        result = measure(args.env, scale, args.repeats)
        results = update_result(args.out, scale, result)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
