"""Copies of training state in memory, to undo a chunk of training; and on disk.

They work on anything with `state_dict` and `load_state_dict`: models, optimizers,
weight averages.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lr_gym.controllers.processes import local_part
from lr_gym.files import user_path, write_bytes
from lr_gym.validation import check_choice

DEVICES = ("same", "host")
_TENSOR = "tensor"


@runtime_checkable
class Stateful(Protocol):
    """An object whose state can be copied and restored."""

    def state_dict(self) -> Any:  # noqa: ANN401 - nested containers of tensors
        """Return the state; its tensors may be the live ones."""

    def load_state_dict(self, state_dict: Any) -> Any:  # noqa: ANN401
        """Continue from a state."""


class Snapshot:
    """A copy of the state of some objects; a new copy reuses the memory of the last.

    Attributes:
        seconds: Time spent on copying so far.
    """

    def __init__(self, objects: Sequence[Stateful], device: str = "same") -> None:
        """Choose the objects; nothing is copied yet.

        Args:
            objects: Copied and restored together.
            device: ``same`` keeps the copies on the tensors' device; ``host`` keeps
                them in host memory, pinned for tensors on a GPU.

        Raises:
            TypeError: An object has no `state_dict` or no `load_state_dict`.
            ValueError: `device` is neither.
        """
        check_choice("snapshot_device", device, DEVICES)
        for stateful in objects:
            if not isinstance(stateful, Stateful):
                raise TypeError(
                    "undo must be objects with state_dict() and load_state_dict(), "
                    f"got {type(stateful).__name__}"
                )
        self.objects = tuple(objects)
        self.device = device
        self.seconds = 0.0
        self._states: list[Any] | None = None
        self._source_gpus: set[torch.device] = set()  # of copies to the host

    def __bool__(self) -> bool:
        """Whether a state is held."""
        return self._states is not None

    @property
    def bytes(self) -> int:
        """Memory of the tensors held by this process, bytes."""
        sizes: list[int] = []
        _map(self._states, lambda t: sizes.append(local_part(t).nbytes))
        return sum(sizes)

    def take(self) -> None:
        """Copy the objects' state."""
        started = time.perf_counter()
        states = [stateful.state_dict() for stateful in self.objects]
        self._source_gpus.clear()
        buffers: list[Tensor] = []
        _map(self._states, buffers.append)
        reusable = iter(buffers)
        self._states = _map(states, lambda t: self._copy(t, next(reusable, None)))
        for device in self._source_gpus:
            torch.cuda.synchronize(device)  # copies to the host are asynchronous
        self.seconds += time.perf_counter() - started

    def restore(self) -> None:
        """Load the copied state into the objects.

        The objects get clones, because optimizers keep the tensors that they load.

        Raises:
            RuntimeError: No state is held.
        """
        if self._states is None:
            raise RuntimeError("nothing to restore: no snapshot was taken")
        for stateful, state in zip(self.objects, self._states, strict=True):
            stateful.load_state_dict(_map(state, torch.clone))

    def state_dict(self) -> Any:  # noqa: ANN401 - nested containers of tensors
        """Return a copy of the state held; `None` before any snapshot."""
        return _map(self._states, torch.clone)

    def load_state_dict(self, state: Any) -> None:  # noqa: ANN401
        """Hold a copy of `state`, as `state_dict` returned it."""
        self._states = _map(state, torch.clone)

    def _copy(self, tensor: Tensor, buffer: Tensor | None) -> Tensor:
        """Return a copy of `tensor`, in `buffer` if it fits."""
        source = tensor.detach()
        target = source.device if self.device == "same" else torch.device("cpu")
        pinned = source.is_cuda and target.type == "cpu"
        if pinned:
            self._source_gpus.add(source.device)
        fits = buffer is not None and (
            buffer.shape == source.shape
            and buffer.dtype == source.dtype
            and buffer.device == target
        )
        if buffer is None or not fits:
            buffer = torch.empty_like(source, device=target, pin_memory=pinned)
        return buffer.copy_(source, non_blocking=True)


def make_snapshot(
    undo: Stateful | Sequence[Stateful],
    optimizer: Stateful,
    device: str,
    *,
    required: bool,
) -> Snapshot | None:
    """Return a `Snapshot` of one or several objects and the optimizer.

    Without objects, return `None`, or raise ValueError if a snapshot is `required`.
    """
    objects = tuple(undo) if isinstance(undo, list | tuple) else (undo,)
    if objects:
        return Snapshot([*objects, optimizer], device)
    if required:
        raise ValueError(
            "the policy undoes training: pass undo=model (or several objects with "
            "state_dict and load_state_dict), or a policy that never undoes, such as "
            "policy='default_without_undo'"
        )
    return None


def _map(value: Any, function: Callable[[Tensor], Any]) -> Any:  # noqa: ANN401
    """Return a deep copy with `function` applied to every tensor, in order."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        mapped = copy.copy(value)  # keeps the type and _metadata of a state_dict
        for key, item in value.items():
            mapped[key] = _map(item, function)
        return mapped
    if isinstance(value, list | tuple):
        return type(value)(_map(item, function) for item in value)
    return copy.deepcopy(value)


# ---------------------------------------------------------------------------- on disk


def save_state(state: Any, path: str | os.PathLike[str]) -> None:  # noqa: ANN401
    """Write nested dicts, lists and tuples of tensors and plain values; no pickle.

    Args:
        state: For example what `ControllerLR.state_dict` returns.
        path: The safetensors file; missing folders are created.

    Raises:
        TypeError: `state` holds another type of value, or tensors that FSDP has split.
    """
    import safetensors.torch

    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, tensors))
    content = safetensors.torch.save(tensors, {"tree": tree})
    write_bytes(path, content)


def load_state(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401
    """Return the state that `save_state` wrote.

    Raises:
        ValueError: The file does not hold such a state.
        FileNotFoundError: The file is missing.
    """
    import safetensors

    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()["tree"])
            return _unpack(tree, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
    except (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        OverflowError,
        safetensors.SafetensorError,
    ) as error:
        raise ValueError(f"{path} is not a saved state: {error!r}") from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Return `value` as JSON and move its tensors to `tensors`.

    Each container and each tensor becomes an object with one entry: its kind.
    """
    if hasattr(value, "to_local"):
        raise TypeError(
            "a state may not hold tensors that FSDP has split (DTensor): save it with "
            "torch.save in every process, or leave out the snapshot"
        )
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone().contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        items = [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state may hold tensors and plain values, got {value!r}")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Return the value that `_pack` turned into JSON."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == _TENSOR:
        return tensors[content]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    if kind not in ("tuple", "list"):
        raise ValueError(f"unknown kind {kind!r}")
    items = [_unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
