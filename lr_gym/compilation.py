"""Compiling the training update with torch.compile, where that pays back."""

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

Update = Callable[..., tuple[Tensor, Tensor]]


def resolve_compile(
    compile: str, device: torch.device, architecture: str = "gpt"
) -> str | None:
    """Return the mode of torch.compile to use, or `None` for eager.

    ``auto`` compiles on CUDA where a compiler (triton) is installed. On a CPU a
    compiled update is at most about 1.5 times as fast and takes 10 to 30 seconds, or 4
    from the cache, which the runs of the built-in scales do not pay back one by one;
    ask for ``default`` where one process trains many. An LSTM is never compiled: its
    kernel is one already, and the compiler would write out every position instead.
    """
    if compile == "off" or architecture == "lstm":
        return None
    if compile != "auto":
        return compile
    triton = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return "default" if triton else None


def compile_update(update: Update, mode: str) -> Update:
    """Compile the method `update`, whose first argument is a dictionary of (E, ...).

    Every E is compiled once, at its first call, which says so on stderr. The result is
    cached on disk, so that the next process takes seconds.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = cache_folder() / "compiled"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    compiled: dict[int, Update] = {}

    def call(state: dict[str, Tensor], *inputs: Any) -> tuple[Tensor, Tensor]:
        size = len(state["parameters"])
        if size in compiled:
            loss, norm = compiled[size](state, *inputs)
            # CUDA graphs write their results to the same place every time.
            return loss.clone(), norm.clone()
        compiled[size] = torch.compile(
            _own_code(update), fullgraph=True, dynamic=False, mode=mode
        )
        what = f"the training step for {size} member{'s' if size > 1 else ''}"
        sys.stderr.write(f"compiling {what} ...\n")
        started = time.perf_counter()
        loss, norm = compiled[size](state, *inputs)
        sys.stderr.write(f"compiled in {time.perf_counter() - started:.0f} s\n")
        return loss.clone(), norm.clone()

    return call


def _own_code(method: Update) -> Update:
    """Return a copy of a bound method: torch compiles few variants of one function."""
    function, owner = method.__func__, method.__self__  # type: ignore[attr-defined]
    copy = types.FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__
    )
    return types.MethodType(copy, owner)
