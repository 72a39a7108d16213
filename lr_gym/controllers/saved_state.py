"""Checks of a controller's saved state, made before any of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lr_gym.controllers.history import Record
from lr_gym.controllers.snapshots import Stateful
from lr_gym.validation import (
    check_boolean,
    check_complete,
    check_integer,
    check_mapping,
    check_real,
    field_names,
)

FORMAT = "lr-gym controller 1"
_ENTRIES = (
    *("format", "iteration", "initial_lrs", "learning_rate", "policy", "run"),
    *("update_size", "history", "snapshot"),
)


def check_state(state: Mapping[str, Any], undo: Sequence[Stateful]) -> None:
    """Check the controller's own entries of its state.

    The policy, the run's tracker and the parameter groups check theirs as they load.

    Args:
        state: What `PolicyLR.state_dict` returned.
        undo: The objects that the snapshot restores; empty if there is none.

    Raises:
        TypeError: An entry is missing, unknown or of the wrong type.
        ValueError: The state has another format, or an entry is out of range.
    """
    check_mapping("state_dict", state)
    if state.get("format") != FORMAT:
        raise ValueError(f"not a controller's state: format must be {FORMAT!r}")
    check_complete("state_dict", state, _ENTRIES)
    check_integer("iteration", state["iteration"], 0)
    check_real("learning_rate", state["learning_rate"], 0.0)
    for name in ("policy", "run"):
        check_mapping(name, state[name])
    if state["update_size"] is not None:
        _check_float("update_size", state["update_size"])
    if not isinstance(state["history"], list | tuple):
        raise TypeError(f"history must be a list, got {state['history']!r}")
    for record in state["history"]:
        _check_record(record)
    if undo and state["snapshot"] is not None:
        check_snapshot(state["snapshot"], undo)


def _check_record(record: Mapping[str, Any]) -> None:
    """Check one entry of the history."""
    check_mapping("a record of history", record)
    check_complete("a record of history", record, field_names(Record))
    check_integer("iteration of history", record["iteration"], 0)
    check_real("learning_rate of history", record["learning_rate"], 0.0)
    _check_float("factor of history", record["factor"])
    if record["val_loss"] is not None:
        _check_float("val_loss of history", record["val_loss"])
    for name in ("undo", "undone", "diverged"):
        check_boolean(f"{name} of history", record[name])


def _check_float(name: str, value: object) -> None:
    """Raise unless `value` is a number of at least 0, infinity or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if value < 0.0:
        raise ValueError(f"{name} must not be negative, got {value!r}")


def check_snapshot(states: object, undo: Sequence[Stateful]) -> None:
    """Check the state of a `Snapshot`.

    Raises:
        TypeError: An entry is missing, unknown or of the wrong type.
        ValueError: An object has no state, or a model has one of another shape.
    """
    if not isinstance(states, list | tuple) or len(states) != len(undo):
        raise ValueError(
            f"snapshot must be a list with the states of {len(undo)} objects, which "
            "undo= and the optimizer are"
        )
    for stateful, state in zip(undo, states, strict=True):
        name = f"the snapshot of {type(stateful).__name__}"
        if isinstance(stateful, nn.Module):
            check_mapping(name, state)
            _check_tensors(name, state, stateful.state_dict())
        elif isinstance(stateful, Optimizer):  # other objects have any state
            check_mapping(name, state)
            _check_groups(name, state, stateful.state_dict())


def _check_tensors(
    name: str, state: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Raise unless the state of a model has the tensors of another one."""
    check_complete(name, state, tuple(expected))
    for key, value in expected.items():
        shape = state[key].shape if isinstance(state[key], Tensor) else None
        if isinstance(value, Tensor) and shape != value.shape:
            raise ValueError(
                f"{name}: {key} must be a tensor of shape {tuple(value.shape)}, got "
                f"{state[key]!r}"
            )


def _check_groups(
    name: str, state: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Raise unless the state of an optimizer has the parameter groups of another."""
    check_mapping(f"{name}: state", state.get("state"))
    groups, own_groups = state.get("param_groups"), expected["param_groups"]
    if not isinstance(groups, list | tuple) or len(groups) != len(own_groups):
        raise ValueError(f"{name} must have {len(own_groups)} parameter groups")
    for group, own in zip(groups, own_groups, strict=True):
        check_mapping(f"{name}: a parameter group", group)
        if group.get("params") != own["params"]:
            raise ValueError(f"{name} has other parameters than the optimizer")
