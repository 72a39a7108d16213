"""Costs of training beside its updates: evaluation, snapshots, memory, environment.

Used by throughput.py and gpu_queue.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from benchmarks.speed.plain_loop import PlainLoop
from benchmarks.speed.timing import spread, synchronize, timed
from lr_gym import Corpus, LRTuningEnv, PopulationTrainer, TrainingConfig, load_corpus

TRAINER_METHODS = ("reset", "train", "evaluate", "snapshot", "restore")


# ------------------------------------------------------------------------- evaluation


def evaluation_cost(
    config: TrainingConfig,
    corpus: Corpus,
    loop: PlainLoop,
    *,
    batches: int,
    repeats: int,
    iterations: int,
) -> dict[str, Any]:
    """Time our evaluations and the plain loop's, in turns.

    Args:
        config: The run.
        corpus: The text.
        loop: A plain loop, trained. It evaluates `batches` random batches per split.
        batches: The paper's code uses 200.
        repeats: Rounds, and samples of the random estimate; at least 2.
        iterations: Updates of our run before the evaluations.
    """
    trainer = PopulationTrainer(config, corpus, 1)
    trainer.reset([0], [0])
    trainer.train(iterations, [config.learning_rate])
    device = trainer.device
    calls: dict[str, Callable[[], Any]] = {
        "exact_val": lambda: trainer.evaluate(exact=True),
        "fixed_val": trainer.evaluate,
        "random_batches_train_and_val": lambda: loop.evaluate(batches),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    estimates = []
    for name in ("exact_val", "fixed_val"):  # the first call cuts the windows
        calls[name]()
    for _ in range(repeats):
        for name, call in calls.items():
            spent, result = timed(call, device)
            seconds[name].append(spent)
            if name.startswith("random"):
                estimates.append(result["val"])
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "characters_exact": len(corpus.val) - 1,
        "characters_fixed": config.eval_tokens,
        "random_batches": batches,
        "random_characters_per_split": batches * config.batch_size * config.block_size,
        "random_val_estimates": estimates,
        "random_val_sd": statistics.stdev(estimates),
    }


# -------------------------------------------------------------------------- snapshots


def snapshot_cost(
    config: TrainingConfig, corpus: Corpus, size: int, repeats: int
) -> dict[str, Any]:
    """Time taking and restoring a snapshot of a whole population."""
    trainer = PopulationTrainer(config, corpus, size)
    device, members = trainer.device, range(size)
    state = trainer.snapshot(members)
    taken, restored = [], []
    for _ in range(repeats):
        seconds, state = timed(partial(trainer.snapshot, members), device)
        taken.append(seconds)
        seconds, _ = timed(partial(trainer.restore, members, state), device)
        restored.append(seconds)
    return {
        "size": size,
        "snapshot_seconds": spread(taken),
        "restore_seconds": spread(restored),
        "bytes_per_member": state_bytes(state) // size,
    }


def state_bytes(state: dict[str, torch.Tensor]) -> int:
    """Return the size of a trainer's state, in bytes."""
    return sum(value.numel() * value.element_size() for value in state.values())


# ----------------------------------------------------------------------------- memory


def memory_cost(
    config: TrainingConfig, sizes: Sequence[int], iterations: int = 2
) -> dict[str, Any]:
    """Return the peak memory of training the smallest and the largest population.

    On a CPU it is the peak of a fresh process (Linux only, else null). On CUDA it is
    the peak of torch's allocations.
    """
    small, large = min(sizes), max(sizes)
    context = get_context("spawn")
    pools = {s: ProcessPoolExecutor(1, mp_context=context) for s in {small, large}}
    running = {
        size: pool.submit(training_peak, config, size, iterations)
        for size, pool in pools.items()
    }
    peaks = {size: future.result() for size, future in running.items()}
    for pool in pools.values():
        pool.shutdown()
    low, high = peaks[small], peaks[large]
    per_member = None
    if low is not None and high is not None and large > small:
        per_member = (high - low) / (large - small)
    return {
        "peak_bytes": {str(size): peak for size, peak in sorted(peaks.items())},
        "bytes_per_extra_member": per_member,
    }


def training_peak(config: TrainingConfig, size: int, iterations: int) -> int | None:
    """Train in this process; return the peak memory, in bytes."""
    torch.set_num_threads(1)
    trainer = PopulationTrainer(config, load_corpus(config.corpus), size)
    trainer.train(iterations, np.full(size, config.learning_rate))
    if trainer.device.type == "cuda":
        return torch.cuda.max_memory_allocated(trainer.device)
    status = Path("/proc/self/status")  # getrusage would count the parent's memory
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


# --------------------------------------------------------------------------- episodes


class Stopwatch:
    """Adds up the time that an object spends in some of its methods."""

    def __init__(self, target: object, names: Sequence[str]) -> None:
        """Replace the methods `names` of `target` by timed methods."""
        self.seconds = 0.0
        for name in names:
            setattr(target, name, self._timed(getattr(target, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> object:
            started = time.perf_counter()
            try:
                return method(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - started

        return call


def gym_episode(config: TrainingConfig, **decisions: Any) -> dict[str, Any]:
    """Time an episode through `gym.make`, from the reset to the last step.

    The overhead of the environment is the time outside the trainer's methods.

    Args:
        config: The run.
        **decisions: Fields of `MDPConfig`.
    """
    settings = asdict(config) | decisions
    env = gym.make(f"LRTuning-{settings.pop('corpus')}-v0", **settings)
    ours = env.unwrapped
    if not isinstance(ours, LRTuningEnv) or not isinstance(
        ours.trainer, PopulationTrainer
    ):
        raise TypeError(f"expected our environment over real training, got {ours}")
    watch = Stopwatch(ours.trainer, TRAINER_METHODS)
    synchronize(ours.trainer.device)
    steps, evaluations = [], []
    started = time.perf_counter()
    env.reset(seed=0)
    reset_seconds = time.perf_counter() - started
    ended = False
    while not ended:
        before = time.perf_counter()
        _, _, terminated, truncated, info = env.step(ours.keep_action)
        now = time.perf_counter()
        steps.append(now - before)
        evaluations.append((info["iteration"], now - started, info["val_loss"]))
        ended = terminated or truncated
    synchronize(ours.trainer.device)
    seconds = time.perf_counter() - started
    env.close()
    outside = seconds - watch.seconds
    return {
        "iterations": info["iteration"],
        "decisions": len(steps),
        "seconds": seconds,
        "reset_seconds": reset_seconds,
        # The first step includes any compilation.
        "first_step_seconds": steps[0],
        "later_step_seconds": spread(steps[1:] or steps),
        "trainer_seconds": watch.seconds,
        "overhead_share": outside / seconds,
        "overhead_seconds_per_step": outside / len(steps),
        "compile": ours.trainer.compile,
        "diverged": info["diverged"],
        "final_val_loss": info["val_loss"],
        "best_val_loss": info["best_val_loss"],
        "evaluations": evaluations,  # iteration, seconds, validation loss
    }


def plain_episode(
    loop: PlainLoop, decisions: int, *, batches: int, part: int | None
) -> dict[str, Any]:
    """Time the plain loop over an episode: all iterations, decisions + 1 evaluations.

    Args:
        loop: Trains at the learning rate of its configuration.
        decisions: Evaluations after the first.
        batches: Random batches per split and evaluation.
        part: Iterations to time, with one evaluation; the result is scaled up. `None`
            runs the whole episode.
    """
    config = loop.config
    rate = config.learning_rate
    training = evaluation = 0.0
    evaluations = decisions + 1
    if part is None:
        for chunk in range(evaluations):
            evaluation += timed(partial(loop.evaluate, batches), loop.device)[0]
            left = config.max_iters - chunk * config.eval_interval
            count = min(config.eval_interval, max(0, left))
            training += timed(partial(loop.train, count, rate), loop.device)[0]
    else:
        seconds, _ = timed(partial(loop.train, part, rate), loop.device)
        training = seconds * config.max_iters / part
        seconds, _ = timed(partial(loop.evaluate, batches), loop.device)
        evaluation = seconds * evaluations
    return {
        "seconds": training + evaluation,
        "training_seconds": training,
        "evaluation_seconds": evaluation,
        "evaluations": evaluations,
        "random_batches": batches,
        "extrapolated": part is not None,
        "timed_iterations": config.max_iters if part is None else part,
    }
