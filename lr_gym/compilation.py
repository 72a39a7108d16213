"""Compiling the training step with torch.compile, where that pays back."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lr_gym.files import cache_folder
from lr_gym.training_step import TrainingStep

Step = Callable[..., tuple[Tensor, Tensor]]
MOST = 32  # compiled steps that a process keeps: the oldest goes first
_compiled: dict[tuple[object, ...], Step] = {}  # shared by the trainers of a process


def resolve_compile(
    compile: str, device: torch.device, architecture: str = "gpt"
) -> str | None:
    """Return the mode of torch.compile to use, or `None` for eager.

    ``auto`` compiles on CUDA where a compiler (triton) is installed. On a CPU a
    compiled step is at most about twice as fast and takes 10 to 30 seconds, or 4 from
    the cache, which the runs of the built-in scales do not pay back one by one; ask
    for ``default`` where one process trains many. An LSTM is never compiled: its kernel
    is one already, and the compiler would write out every position instead.
    """
    if compile == "off" or architecture == "lstm":
        return None
    if compile != "auto":
        return compile
    triton = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return "default" if triton else None


def compiled_step(step: TrainingStep, mode: str) -> Step:
    """Return `step`, compiled: of every number of members E at its first call.

    That call says so on stderr. Trainers of one process whose steps do the same share
    what is compiled; the next process finds it on disk, and takes seconds.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = cache_folder() / "compiled"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    same_step = (step.key, mode)

    def call(
        state: dict[str, Tensor], tokens: Tensor, *inputs: Any
    ) -> tuple[Tensor, Tensor]:
        size = len(state["parameters"])
        key = (same_step, size, tokens.shape, tokens.dtype, tokens.device)
        if key in _compiled:
            loss, norm = _compiled[key](state, tokens, *inputs)
            # CUDA graphs write their results to the same place every time.
            return loss.clone(), norm.clone()
        what = f"the training step for {size} member{'s' if size > 1 else ''}"
        sys.stderr.write(f"compiling {what} ...\n")
        started = time.perf_counter()
        compiled = torch.compile(
            _own_code(step), fullgraph=True, dynamic=False, mode=mode
        )
        loss, norm = compiled(state, tokens, *inputs)
        sys.stderr.write(f"compiled in {time.perf_counter() - started:.0f} s\n")
        _compiled[key] = compiled
        while len(_compiled) > MOST:
            del _compiled[next(iter(_compiled))]
        return loss.clone(), norm.clone()

    return call


def forget_compiled() -> None:
    """Drop what this process has compiled, and the memory it holds."""
    _compiled.clear()
    torch.compiler.reset()


def _own_code(step: TrainingStep) -> Step:
    """Return a copy of the step's code: torch compiles few variants of one function."""
    function = TrainingStep.__call__
    copy = types.FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__
    )
    return types.MethodType(copy, step)
