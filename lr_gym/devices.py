"""Which device and number format a run computes with, and how large it is."""

from __future__ import annotations

import warnings

import torch

from lr_gym.config import SCALES
from lr_gym.validation import check_choice


def resolve_device(device: str) -> torch.device:
    """Return the torch device that `device` names; ``auto`` prefers CUDA.

    Raises:
        ValueError: The device is unknown to torch, or absent on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device must be 'auto' or a torch device of this machine, got {device!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return ``float32`` or ``bfloat16``; for ``auto``, what the hardware is for."""
    if precision != "auto":
        return precision
    return "bfloat16" if fast_bfloat16(device) else "float32"


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic of its own, not an emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def check_scale(scale: object) -> None:
    """Raise ValueError unless `scale` is ``auto`` or a preset."""
    check_choice("scale", scale, ("auto", *SCALES))


def resolve_scale(scale: str, device: str, stacklevel: int = 2) -> str:
    """Return the preset's name: for ``auto``, ``paper`` on CUDA and ``mini`` elsewhere.

    Warns when it chose, since results of different scales do not compare.
    """
    check_scale(scale)
    if scale != "auto":
        return scale
    chosen = "paper" if resolve_device(device).type == "cuda" else "mini"
    warnings.warn(
        f"scale='auto' chose {chosen!r} for this machine; pass scale='paper', 'mini' "
        "or 'tiny' to choose yourself (results of different scales do not compare)",
        stacklevel=stacklevel + 1,
    )
    return chosen
