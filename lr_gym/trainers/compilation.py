"""Compiling training and evaluation with torch.compile, where that pays back."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lr_gym.files import cache_folder
from lr_gym.trainers.cuda_graphs import GraphedStep, Step
from lr_gym.trainers.loss import Losses, PopulationLoss
from lr_gym.trainers.step import TrainingStep

MAX_CACHED_STEPS = 32  # compiled functions that a process keeps: the oldest goes first
_compiled: dict[tuple[object, ...], Callable[..., Any]] = {}  # of all trainers


def resolve_compile(
    compile: str, device: torch.device, architecture: str = "gpt"
) -> str | None:
    """Return ``default``, ``graph``, or `None` for eager.

    ``default`` is `torch.compile`; ``graph`` captures what it makes in one CUDA graph.
    ``auto`` compiles on CUDA where a compiler (triton) is installed. On a CPU a
    compiled step is at most about twice as fast and takes 10 to 30 seconds, or 4 from
    the cache, which the runs of the built-in scales do not pay back one by one; ask
    for ``default`` where one process trains many. An LSTM is never compiled: its kernel
    is one already, and the compiler would write out every position instead.

    Raises:
        ValueError: ``graph`` is asked for without CUDA.
    """
    if compile == "off" or architecture == "lstm":
        return None
    if compile == "graph" and device.type != "cuda":
        raise ValueError(
            f"compile='graph' needs a CUDA device, got device={str(device)!r}; pass "
            "compile='default', or 'auto'"
        )
    if compile != "auto":
        return compile
    triton = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return "default" if triton else None


def compiled_step(step: TrainingStep, mode: str) -> Step:
    """Return `step`, compiled, in a CUDA graph where `mode` is ``graph``.

    It is compiled for every number of members E at its first call, which says so on
    stderr. Trainers of one process whose steps do the same share what is compiled; the
    next process finds it on disk, and takes seconds.
    """
    step_key = step.key

    def call(
        state: dict[str, Tensor], tokens: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        size = len(state["parameters"])
        key = ("training", step_key, size, tokens.shape, tokens.dtype, tokens.device)
        what = f"the training step for {size} member{'s' if size > 1 else ''}"
        make = partial(_own_code, TrainingStep.__call__, step)
        outputs: tuple[Tensor, Tensor]
        outputs = _compiled_call(key, what, make, state, tokens, *inputs)
        return outputs

    return GraphedStep(call) if mode == "graph" else call


def compiled_losses(population_loss: PopulationLoss, step: TrainingStep) -> Losses:
    """Return `population_loss.losses`, compiled likewise, for the model of `step`."""
    step_key = step.key

    def call(parameters: Tensor, windows: Tensor, reduction: str) -> Tensor:
        key = ("evaluation", step_key, windows.shape, reduction, windows.device)
        what = f"the evaluation of {len(windows)} x {windows.shape[1]} windows"
        make = partial(_own_code, PopulationLoss.losses, population_loss)
        losses: Tensor
        losses = _compiled_call(key, what, make, parameters, windows, reduction)
        return losses

    return call


def _compiled_call(
    key: tuple[object, ...], what: str, make: Callable[[], Any], *arguments: Any
) -> Any:  # noqa: ANN401 - whatever the function returns
    """Call the function of `key`, which `make` returns to be compiled at first."""
    if key in _compiled:
        return _compiled[key](*arguments)
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "compiled")
    sys.stderr.write(f"compiling {what} ...\n")
    started = time.perf_counter()
    compiled: Callable[..., Any]
    compiled = torch.compile(make(), fullgraph=True, dynamic=False)
    result = compiled(*arguments)
    sys.stderr.write(f"compiled in {time.perf_counter() - started:.0f} s\n")
    _compiled[key] = compiled
    while len(_compiled) > MAX_CACHED_STEPS:
        del _compiled[next(iter(_compiled))]
    return result


def forget_compiled() -> None:
    """Drop what this process has compiled, and the memory it holds."""
    _compiled.clear()
    torch.compiler.reset()


def _own_code(function: Any, owner: object) -> Callable[..., Any]:  # noqa: ANN401
    """Return a method with a copy of its code: torch compiles few variants of one."""
    copy = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
    )
    return types.MethodType(copy, owner)
