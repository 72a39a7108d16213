"""Compiling the training update with torch.compile, where that pays back."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lr_gym.devices import fast_bfloat16
from lr_gym.files import cache_folder

Update = Callable[..., tuple[Tensor, Tensor]]


def resolve_compile(compile: str, device: torch.device, precision: str) -> str | None:
    """Return the mode of torch.compile to use, or `None` for eager.

    ``auto`` compiles where the compiled step is about twice as fast and a compiler is
    installed: on CUDA, and on CPUs with bfloat16 instructions. In float32 on a CPU most
    time goes into matrix products, which compiling does not touch.
    """
    if compile == "off":
        return None
    if compile != "auto":
        return compile
    if device.type == "cuda":
        pays = importlib.util.find_spec("triton") is not None
    else:
        compiler = shutil.which(os.environ.get("CXX", "g++"))
        pays = precision == "bfloat16" and fast_bfloat16(device) and bool(compiler)
    return "default" if pays else None


def compile_update(update: Update, mode: str) -> Update:
    """Compile `update`, whose first argument is a dictionary of (E, ...) tensors.

    Every E is compiled once, at its first call, which says so on stderr. The result is
    cached on disk, so that the next process takes seconds.
    """
    folder = cache_folder() / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    compiled = torch.compile(update, fullgraph=True, dynamic=False, mode=mode)
    seen: set[int] = set()

    def call(state: dict[str, Tensor], *inputs: Any) -> tuple[Tensor, Tensor]:
        size = len(state["parameters"])
        if size in seen:
            return compiled(state, *inputs)
        seen.add(size)
        what = f"the training step for {size} member{'s' if size > 1 else ''}"
        sys.stderr.write(f"compiling {what} ...\n")
        started = time.perf_counter()
        result = compiled(state, *inputs)
        seconds = time.perf_counter() - started
        sys.stderr.write(f"compiled in {seconds:.0f} s\n")
        return result

    return call
