"""A stand-in for a GPU on any machine, and the requirements of CUDA's kernels.

Tensors on torch's ``meta`` device have shapes and types but no numbers. Code that
treats only the CPU as special takes the same path on ``meta`` as on CUDA. `Accelerator`
checks every operation on that path against the requirements in PyTorch's CUDA sources,
and records where the host would wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = "meta"
# The host needs the result of these before it can continue.
SYNCHRONIZING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_dim",
    "equal",
)


class Accelerator(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Checks operations on ``meta`` tensors; answers reads with zeros.

    Attributes:
        waits: Names of the operations at which the host waits for the device.
            Copies from the host count: they wait unless the memory is pinned.
        fused: How often a fused optimizer kernel was called.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.waits: list[str] = []
        self.fused = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        on_device = [t for t in tensors if t.device.type == DEVICE]
        if name.startswith("_fused_adam"):
            check_fused_adam(*args, **kwargs)
            self.fused += 1
            return None if on_device else func(*args, **kwargs)
        if name == "_to_copy" and "device" in kwargs:
            target = torch.device(kwargs["device"]).type
            if on_device and target == "cpu":
                self.waits.append("copy to the host")
                dtype = kwargs.get("dtype") or args[0].dtype
                return torch.zeros(args[0].shape, dtype=dtype)
            if not on_device and target == DEVICE:
                self.waits.append("copy from the host")
        elif name == "copy_" and on_device and len(on_device) < len(tensors):
            self.waits.append("copy between host and device")
            return args[0]
        elif on_device:
            check_devices(name, tensors)
            if name in ("index", "index_put_", "_index_put_impl_"):
                check_indices(name, args[1])
            if name in SYNCHRONIZING:
                self.waits.append(name)
                if name == "_local_scalar_dense":
                    return 0
        return func(*args, **kwargs)


def check_devices(name: str, tensors: Iterable[Tensor]) -> None:
    """Fail if an operation mixes devices; scalars from the host are allowed."""
    for tensor in tensors:
        allowed = tensor.device.type == DEVICE or tensor.dim() == 0
        assert allowed, f"{name} mixes {DEVICE} and {tensor.device}"


def check_indices(name: str, indices: Iterable[Tensor | None]) -> None:
    """Fail if a mask is an index: the host would wait for its number of entries."""
    for index in indices:
        masked = index is not None and index.dtype in (torch.bool, torch.uint8)
        assert not masked, f"{name} by a mask waits for the device"


def check_fused_adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    *,
    lr: Tensor | float,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    **_: object,
) -> None:
    """Fail unless CUDA's fused Adam and AdamW accept these arguments.

    Sources, in ATen/native/cuda: ``FusedAdamWKernel.cu`` (devices, restrictions of the
    fast path), ``fused_adamw_impl.cu`` (``lr.const_data_ptr<float>()``, likewise
    ``grad_scale`` and ``found_inf``) and ``MultiTensorApply.cuh`` (element counts).
    """
    device = parameters[0].device
    scalars = {"lr": lr, "grad_scale": grad_scale, "found_inf": found_inf}
    for name, scalar in scalars.items():
        if isinstance(scalar, Tensor):
            assert scalar.dtype == torch.float32, f"{name} is read as float32"
            assert scalar.device == device, f"{name} is on {scalar.device}"
            assert scalar.numel() == 1, f"{name} has {scalar.numel()} elements"
    assert len(state_steps) == len(parameters)
    for step in state_steps:
        assert step.dtype == torch.float32
        assert step.device == device
        assert step.numel() == 1
    lists = [parameters, gradients, exp_avgs, exp_avg_sqs]
    lists += [max_exp_avg_sqs] if max_exp_avg_sqs else []
    for group in zip(*lists, strict=True):
        first = group[0]
        for tensor in group:
            assert tensor.shape == first.shape
            assert tensor.dtype == first.dtype
            assert tensor.device == first.device
            assert tensor.stride() == first.stride()
            assert tensor.is_contiguous()
        storages = {tensor.untyped_storage()._cdata for tensor in group}
        assert len(storages) == len(group), "lists share memory"
