"""Devices: the choice of `auto`, and errors for missing devices."""

from __future__ import annotations

import pytest
import torch

from lr_gym.devices import resolve_device, resolve_precision, resolve_scale


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu"])
def test_an_absent_device_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device must be 'auto' or a torch device"):
        resolve_device(device)


def test_what_auto_chooses() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_precision("auto", torch.device("cpu")) in ("float32", "bfloat16")
    with pytest.warns(UserWarning, match="scale='auto' chose"):
        chosen = resolve_scale("auto", "auto")
    assert chosen == ("paper" if expected == "cuda" else "mini")
