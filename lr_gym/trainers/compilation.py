"""Compile training and evaluation with torch.compile, where that saves time."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
import types
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from lr_gym.files import writable_cache_folder
from lr_gym.trainers.cuda_graphs import GraphedStep, Step
from lr_gym.trainers.loss import Losses, PopulationLoss
from lr_gym.trainers.step import TrainingStep

MAX_CACHED_STEPS = 32  # compiled functions per process; the oldest is dropped first
_compiled: dict[tuple[object, ...], Callable[..., Any]] = {}  # of all trainers


def resolve_compile(
    compile: str, device: torch.device, architecture: str = "gpt"
) -> str | None:
    """Return ``default``, ``graph``, or `None` for eager.

    ``default`` uses `torch.compile`; ``graph`` also captures the compiled step in one
    CUDA graph, which makes one member twice as fast. ``auto`` is ``graph`` on CUDA;
    without the compilers it warns, once per process, and trains eagerly.

    On a CPU a compiled step is at most about twice as fast, and compiling takes 10 to
    30 seconds, or 4 from the cache. One run of a built-in scale is too short for that;
    pass ``default`` if one process trains many runs. An LSTM is never compiled: it is
    one kernel already, and the compiler would unroll it over all positions.

    Args:
        compile: `TrainingConfig.compile`.
        device: The trainer's device.
        architecture: `TrainingConfig.architecture`.

    Raises:
        ValueError: `compile` is ``graph`` and the device is not CUDA, or a compiler
            that it needs is not installed.
    """
    if compile == "off" or architecture == "lstm":
        return None
    if compile == "graph" and device.type != "cuda":
        raise ValueError(
            f"compile='graph' needs a CUDA device, got device={str(device)!r}; pass "
            "compile='default', or 'auto'"
        )
    missing = _missing_compiler(device)
    if compile == "auto":
        if device.type != "cuda":
            return None
        if missing is not None:
            _warn_of_eager_training(missing)
            return None
        return "graph"
    if missing is not None:
        raise ValueError(
            f"compile={compile!r} needs {missing}, which is not installed: install it, "
            "or pass compile='off'"
        )
    return compile


@cache
def _warn_of_eager_training(missing: str) -> None:
    """Warn, the first time, that training on CUDA is not compiled."""
    warnings.warn(
        f"compile='auto' trains without torch.compile, which is slower: {missing} is "
        "not installed. Install it, or pass compile='off' to accept eager training",
        stacklevel=3,
    )


def _missing_compiler(device: torch.device) -> str | None:
    """Return the compiler that torch.compile needs on `device` and does not find.

    torch and triton look for it only when the first step is compiled.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "the package triton"
        names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
        found = any(shutil.which(name) for name in names)
        return None if found else "a C compiler (gcc, or the one that CC names)"
    if device.type != "cpu" or os.environ.get("TORCH_INDUCTOR_INSTALL_GXX"):
        return None
    default = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    name = os.environ.get("CXX", default)
    return None if shutil.which(name) else f"the C++ compiler {name!r} (or set CXX)"


def compiled_step(step: TrainingStep, mode: str) -> Step:
    """Return `step`, compiled; as a CUDA graph if `mode` is ``graph``.

    The first call for each number of members E compiles, and reports it on stderr.
    Trainers in one process share the compiled code of equal steps. A later process
    loads it from disk, in seconds.
    """
    step_key = step.key

    def call(
        state: dict[str, Tensor], tokens: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        size = len(state["parameters"])
        key = ("training", step_key, size, tokens.shape, tokens.dtype, tokens.device)
        what = f"the training step for {size} member{'s' if size > 1 else ''}"
        make = partial(_copy_method, TrainingStep.__call__, step)
        outputs: tuple[Tensor, Tensor]
        outputs = _compiled_call(key, what, make, state, tokens, *inputs)
        return outputs

    return GraphedStep(call) if mode == "graph" else call


def compiled_losses(population_loss: PopulationLoss, step: TrainingStep) -> Losses:
    """Return `population_loss.losses`, compiled and shared as `compiled_step` is."""
    step_key = step.key

    def call(parameters: Tensor, windows: Tensor, reduction: str) -> Tensor:
        key = ("evaluation", step_key, windows.shape, reduction, windows.device)
        what = f"the evaluation of {len(windows)} x {windows.shape[1]} windows"
        make = partial(_copy_method, PopulationLoss.losses, population_loss)
        losses: Tensor
        losses = _compiled_call(key, what, make, parameters, windows, reduction)
        return losses

    return call


def _compiled_call(
    key: tuple[object, ...], what: str, make: Callable[[], Any], *arguments: Any
) -> Any:  # noqa: ANN401 - whatever the function returns
    """Call the compiled function of `key`; if absent, compile what `make` returns."""
    if key in _compiled:
        return _compiled[key](*arguments)
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = writable_cache_folder() / "compiled"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
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
    """Drop all functions that this process has compiled, and free their memory."""
    _compiled.clear()
    torch.compiler.reset()


def _copy_method(function: Any, owner: object) -> Callable[..., Any]:  # noqa: ANN401
    """Return `function` as a method of `owner`, with its own code object.

    torch limits how many variants of one code object it compiles.
    """
    copy = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
    )
    return types.MethodType(copy, owner)
