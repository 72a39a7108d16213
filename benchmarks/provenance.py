"""The provenance of a result: command, commit, code, versions and hardware."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import lr_gym
from benchmarks.dependencies import changed_since, code_hash
from benchmarks.paths import ROOT

STARTED = time.time()  # of this process, nearly
PACKAGES = ("torch", "triton", "numpy", "gymnasium", "stable-baselines3")


def provenance() -> dict[str, Any]:
    """Return command, git commit, code, versions and hardware of this process.

    ``code`` is the hash of the modules that the running script depends on. It is `None`
    for scripts outside the project, and if a module has changed since the start.
    """
    return {
        "command": shlex.join(_command()),
        "commit": _commit(),
        "code": _code(),
        "python": platform.python_version(),
        "versions": {
            "lr-gym": lr_gym.__version__,
            **{name: _version(name) for name in PACKAGES},
        },
        "hardware": {
            "machine": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **_gpu(),
        },
    }


def _command() -> list[str]:
    """Return the words that start this process again, from the root of a checkout."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:  # started with -m
        return ["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
    script = Path(sys.argv[0]).resolve()
    inside = script.is_relative_to(ROOT)
    name = script.relative_to(ROOT).as_posix() if inside else script.name
    return ["python", name, *sys.argv[1:]]


def _code() -> str | None:
    """Return the hash of the running script's code, if it is still what runs."""
    script = _command()[-1 - len(sys.argv[1:])]
    module = script.removesuffix(".py").replace("/", ".")
    try:
        return None if changed_since(STARTED, module) else code_hash(module)
    except ValueError:  # a script of another project
        return None


def _gpu() -> dict[str, str | None]:
    """Return the name of the GPU, its driver, and the CUDA version of torch."""
    if not torch.cuda.is_available():
        return {"gpu": None}
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver() -> str | None:
    """Return the version of the GPU's driver, or None where its tool fails."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.split("\n")[0].strip()


def _commit() -> str | None:
    """Return the commit of the checkout, with ``+`` if files have changed since."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # an unpacked archive, for example


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
