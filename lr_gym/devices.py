"""Choose a run's device, number format and scale."""

from __future__ import annotations

import os
import warnings

import torch

from lr_gym.config import SCALES
from lr_gym.validation import check_choice


def resolve_device(device: str) -> torch.device:
    """Return the torch device that `device` names; ``auto`` prefers CUDA.

    Raises:
        TypeError: `device` is not a string.
        ValueError: The device is unknown to torch, or absent on this machine.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a string, got {device!r}")
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


def check_memory(device: torch.device, needed: int) -> None:
    """Raise ValueError if training needs more bytes than the whole device has."""
    if device.type == "cuda":
        available = int(torch.cuda.get_device_properties(device).total_memory)
    elif device.type == "cpu":
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:  # not known
        return
    if needed > available:
        raise ValueError(
            f"training needs at least {needed / 2**30:.3g} GiB of memory, {device} has "
            f"{available / 2**30:.3g}: pass a smaller n_embd, n_layer, batch_size or "
            "block_size, or fewer environments"
        )


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return ``float32`` or ``bfloat16``; ``auto`` prefers a fast bfloat16."""
    if precision != "auto":
        return precision
    return "bfloat16" if fast_bfloat16(device) else "float32"


def fast_bfloat16(device: torch.device) -> bool:
    """Return whether the device's hardware has bfloat16 arithmetic."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def check_scale(scale: object) -> None:
    """Raise ValueError unless `scale` is ``auto`` or a preset."""
    check_choice("scale", scale, ("auto", *SCALES))


def resolve_scale(scale: str, device: str, stacklevel: int = 2) -> str:
    """Return the preset's name; ``auto`` is ``paper`` on CUDA and ``mini`` elsewhere.

    ``auto`` warns, since results of different scales are not comparable.

    Args:
        scale: ``auto`` or a preset's name.
        device: `TrainingConfig.device`.
        stacklevel: Frames between this function and the caller that the warning names.

    Raises:
        ValueError: `scale` is unknown.
    """
    check_scale(scale)
    if scale != "auto":
        return scale
    chosen = "paper" if resolve_device(device).type == "cuda" else "mini"
    warnings.warn(
        f"scale='auto' chose {chosen!r} for this machine; pass scale='paper', 'mini' "
        "or 'tiny' to choose yourself (results of different scales are not comparable)",
        stacklevel=stacklevel + 1,
    )
    return chosen
