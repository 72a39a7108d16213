"""Copies of training state in memory, for taking a chunk of training back; on disk too.

Works on anything with `state_dict` and `load_state_dict`: models, optimizers, averages.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lr_gym.files import write_bytes
from lr_gym.validation import check_choice

DEVICES = ("same", "host")
_TENSOR = "tensor"


@runtime_checkable
class Stateful(Protocol):
    """What can be snapshot."""

    def state_dict(self) -> Any:  # noqa: ANN401 - nested containers of tensors
        """Return the state; tensors may be the live ones."""

    def load_state_dict(self, state_dict: Any) -> Any:  # noqa: ANN401
        """Continue from a state."""


class Snapshot:
    """The state of some objects at one moment; taking it again reuses its memory.

    Attributes:
        seconds: Spent on copying so far.
        taken: How often it was taken.
    """

    def __init__(self, objects: Sequence[Stateful], device: str = "same") -> None:
        """Remember whom to copy; nothing is copied yet.

        Args:
            objects: Copied and put back together.
            device: ``same`` keeps copies where the tensors are; ``host`` in the host's
                memory, pinned where the tensors are on a GPU.

        Raises:
            TypeError: An object has no `state_dict` and `load_state_dict`.
            ValueError: `device` is neither.
        """
        check_choice("snapshot_device", device, DEVICES)
        for thing in objects:
            if not isinstance(thing, Stateful):
                raise TypeError(
                    "undo must be objects with state_dict() and load_state_dict(), "
                    f"got {type(thing).__name__}"
                )
        self.objects = tuple(objects)
        self.device = device
        self.seconds = 0.0
        self.taken = 0
        self._states: list[Any] | None = None
        self._copied_from: set[torch.device] = set()  # GPUs, to the host

    def __bool__(self) -> bool:
        """Whether there is anything to put back."""
        return self._states is not None

    @property
    def bytes(self) -> int:
        """Size of the tensors held."""
        sizes: list[int] = []
        _map(self._states, lambda t: sizes.append(t.nbytes))
        return sum(sizes)

    def take(self) -> None:
        """Copy the objects' state."""
        started = time.perf_counter()
        states = [thing.state_dict() for thing in self.objects]
        self._copied_from.clear()
        held: list[Tensor] = []
        _map(self._states, held.append)
        free = iter(held)
        self._states = _map(states, lambda t: self._copy(t, next(free, None)))
        for device in self._copied_from:
            torch.cuda.synchronize(device)  # copies to the host must be whole
        self.seconds += time.perf_counter() - started
        self.taken += 1

    def restore(self) -> None:
        """Put the copied state back into the objects.

        They get copies of their own: optimizers keep the tensors they are given.

        Raises:
            RuntimeError: There is no snapshot.
        """
        if self._states is None:
            raise RuntimeError("nothing to restore: no snapshot was taken")
        for thing, state in zip(self.objects, self._states, strict=True):
            thing.load_state_dict(_map(state, torch.clone))

    def state_dict(self) -> Any:  # noqa: ANN401 - nested containers of tensors
        """Return a copy of what is held; `None` before any snapshot."""
        return _map(self._states, torch.clone)

    def load_state_dict(self, state: Any) -> None:  # noqa: ANN401
        """Hold `state` from now on."""
        self._states = _map(state, torch.clone)

    def _copy(self, tensor: Tensor, memory: Tensor | None) -> Tensor:
        source = tensor.detach()
        target = source.device if self.device == "same" else torch.device("cpu")
        pinned = source.is_cuda and target.type == "cpu"
        if pinned:
            self._copied_from.add(source.device)
        fits = memory is not None and (
            memory.shape == source.shape
            and memory.dtype == source.dtype
            and memory.device == target
        )
        if memory is None or not fits:
            memory = torch.empty_like(source, device=target, pin_memory=pinned)
        return memory.copy_(source, non_blocking=True)


def _map(value: Any, function: Callable[[Tensor], Any]) -> Any:  # noqa: ANN401
    """Return nested containers with `function` applied to every tensor, in order."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        mapped = copy.copy(value)  # keeps a state_dict's type and its _metadata
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
        state: As `ControllerLR.state_dict` returns it.
        path: The safetensors file; missing folders are made.

    Raises:
        TypeError: Something is neither a tensor nor plain.
    """
    import safetensors.torch

    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, tensors))
    content = safetensors.torch.save(tensors, {"tree": tree})
    write_bytes(os.fspath(path), content)


def load_state(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401
    """Read what `save_state` wrote.

    Raises:
        ValueError: The file is not such a state.
        FileNotFoundError: It is missing.
    """
    import safetensors

    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {os.fspath(path)}")
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            tree = json.loads(file.metadata()["tree"])
            return _unpack(tree, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
    except (ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is not a saved state: {error!r}") from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Return `value` as JSON, each container and tensor as a one-entry object."""
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
    raise TypeError(f"a state holds tensors and plain values, got {value!r}")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == _TENSOR:
        return tensors[content]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    items = [_unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
