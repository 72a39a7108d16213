"""Policy files: safetensors with a JSON header in the metadata. No pickle.

The header is one JSON object under the metadata key ``lr_gym``:

==============  ====================================================================
``format``      `FORMAT`
``kind``        ``mlp``, ``q_table``, or one of `RULES`
``mdp``         fields of `lr_gym.MDPConfig`: features, factors, undo, spacing, bounds
``parameters``  what the kind needs besides its arrays
``provenance``  where the policy comes from; for people, not used by the code
==============  ====================================================================

A file is data: loading it runs no code from it. A damaged, foreign or oversized file
raises a ValueError with the reason.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies import q_table
from lr_gym.controllers.policies.encoding import (
    Arrays,
    Parameters,
    check_arrays,
    decode_mlp,
    decode_table,
    encode_mlp,
    encode_table,
    make_table,
)
from lr_gym.controllers.policies.mlp import MLP
from lr_gym.controllers.policies.policy import ActionPolicy, Policy
from lr_gym.controllers.policies.q_table import QTable
from lr_gym.controllers.policies.ramp_and_undo import RampAndUndo
from lr_gym.controllers.policies.rule import Rule
from lr_gym.controllers.policies.update_size_rule import UpdateSizeRule
from lr_gym.files import user_path, write_bytes
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_choice, check_keys, field_names

FORMAT = "lr-gym policy 2"
KEY = "lr_gym"  # of the safetensors metadata
MAX_FILE_BYTES = 64 * 2**20
MAX_HEADER_CHARACTERS = 256 * 2**10
DTYPES = {"F32": np.float32, "F64": np.float64}
RULES: dict[str, type[RampAndUndo] | type[UpdateSizeRule]] = {
    "rule": RampAndUndo,
    "update_size_rule": UpdateSizeRule,
}
BUILT_IN: dict[str, Callable[[], Policy]] = {
    "default": UpdateSizeRule,
    "default_without_undo": lambda: UpdateSizeRule(undo=False),
    "update_size": UpdateSizeRule,
    "ramp_and_undo": RampAndUndo,
}


def load_controller(name_or_path: str | os.PathLike[str]) -> Policy:
    """Return a policy by name, or from a file.

    Args:
        name_or_path: One of the names below, or the path of a policy file or of a
            Q-table that `agents/tabular_q.py` saved (``.json``). ``default`` and
            ``update_size`` are the update-size rule; ``default_without_undo`` is the
            same rule without undo; ``ramp_and_undo`` is `RampAndUndo`.

    Raises:
        TypeError: `name_or_path` is neither a string nor a path.
        ValueError: The name is unknown, or the file is not a valid policy file.

    >>> load_controller("default").config.allow_undo
    True
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(f"policy must be a name or a path, got {name_or_path!r}")
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return BUILT_IN[name]()
    path = user_path(name)
    if not path.is_file():
        raise ValueError(
            f"policy must be one of {', '.join(BUILT_IN)}, or the path of a policy "
            f"file; got {name!r}, which is neither"
        )
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(
            f"{path} is refused: {size:,} bytes, at most {MAX_FILE_BYTES:,} are allowed"
        )
    import safetensors

    try:
        return _read_json(path) if path.suffix == ".json" else _read_policy(path)
    except (TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is refused: {error!r}") from error
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is refused: {error}") from error


def copy_policy(policy: str | os.PathLike[str] | Policy) -> Policy:
    """Return a named policy, or a copy: a policy holds the memory of one run.

    Raises:
        TypeError: `policy` is neither a name, a path nor a policy.
        ValueError: See `load_controller`.
    """
    if isinstance(policy, str | os.PathLike):
        return load_controller(policy)
    if not hasattr(policy, "act"):
        raise TypeError(f"policy must be a name, a path or a policy, got {policy!r}")
    return copy.deepcopy(policy)


def save_policy(
    policy: ActionPolicy | Rule,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a policy to one file, atomically.

    Args:
        policy: A rule, or an `ActionPolicy` with an `MLP` or a `QTable`.
        path: The file; missing folders are created.
        provenance: Where the policy comes from, as JSON values; stored unchanged.

    Raises:
        TypeError: The policy is of another kind, or `provenance` is not JSON.
        ValueError: `provenance` is too long, or holds NaN or infinity.
    """
    kind, parameters, arrays = _describe(policy)
    header = {
        "format": FORMAT,
        "kind": kind,
        "mdp": dataclasses.asdict(policy.config),
        "parameters": parameters,
        "provenance": dict(provenance or {}),
    }
    text = json.dumps(header, allow_nan=False)
    if len(text) > MAX_HEADER_CHARACTERS:
        raise ValueError(
            f"the header has {len(text):,} characters, at most "
            f"{MAX_HEADER_CHARACTERS:,} are allowed: shorten provenance"
        )
    import safetensors.numpy

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, safetensors.numpy.save(arrays, {KEY: text}))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the provenance in a policy file; ValueError if the file is invalid."""
    import safetensors

    load_controller(path)  # validates the file
    with safetensors.safe_open(user_path(path), framework="np") as file:
        provenance: dict[str, Any] = json.loads(file.metadata()[KEY])["provenance"]
    return provenance


# -------------------------------------------------------------------------- writing


def _describe(policy: ActionPolicy | Rule) -> tuple[str, Parameters, Arrays]:
    """Return a policy's kind, parameters and arrays."""
    for kind, rule in RULES.items():
        if type(policy) is rule:
            return kind, policy.parameters, {}
    head = policy.head if isinstance(policy, ActionPolicy) else None
    if isinstance(head, MLP):
        return "mlp", *encode_mlp(head)
    if isinstance(head, QTable):
        return "q_table", *encode_table(head)
    raise TypeError(
        "policy must be a rule, or an ActionPolicy with an MLP or a QTable, got "
        f"{policy!r}"
    )


# -------------------------------------------------------------------------- reading


def _read_policy(path: Path) -> Policy:
    """Return the policy in a safetensors file."""
    import safetensors

    with safetensors.safe_open(path, framework="np") as file:
        header = _parse_header((file.metadata() or {}).get(KEY))
        arrays = {name: _read_array(file, name) for name in file.keys()}  # noqa: SIM118 - no mapping
    config = MDPConfig(**header["mdp"])
    parameters = header["parameters"]
    if header["kind"] in RULES:
        rule = RULES[header["kind"]](**parameters)
        check_arrays(arrays, {})
        if rule.config != config:
            raise ValueError(
                "the header's mdp is not that of a rule with its parameters"
            )
        return rule
    if header["kind"] == "mlp":
        return ActionPolicy(config, decode_mlp(config, parameters, arrays))
    return ActionPolicy(config, decode_table(config, parameters, arrays))


def _parse_header(text: str | None) -> dict[str, Any]:
    """Return the header; raise unless its keys and their types are right."""
    if text is None:
        raise ValueError(f"its metadata has no {KEY!r}: not a policy file")
    header = _parse_json(text, MAX_HEADER_CHARACTERS)
    if header.get("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}, got {header.get('format')!r}")
    keys = ("format", "kind", "mdp", "parameters", "provenance")
    check_keys("the header", header, keys)
    check_choice("kind", header["kind"], ("mlp", "q_table", *RULES))
    for name in keys[2:]:
        if not isinstance(header[name], dict):
            raise ValueError(f"{name} must be an object, got {header[name]!r}")
    check_keys("mdp", header["mdp"], field_names(MDPConfig))
    return header


def _parse_json(text: str, max_characters: int) -> dict[str, Any]:
    """Return the JSON object in `text`; NaN and infinity are errors."""
    if len(text) > max_characters:
        raise ValueError(
            f"{len(text):,} characters of JSON, at most {max_characters:,} are allowed"
        )

    def reject_constant(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    content = json.loads(text, parse_constant=reject_constant)
    if not isinstance(content, dict):
        raise ValueError("the JSON is not an object")
    return content


def _read_array(file: Any, name: str) -> NDArray[Any]:  # noqa: ANN401 - untyped library
    """Return one array; raise unless its type is allowed and its numbers finite."""
    dtype = file.get_slice(name).get_dtype()
    if dtype not in DTYPES:
        raise ValueError(f"{name} must be one of {', '.join(DTYPES)}, got {dtype}")
    array: NDArray[Any] = file.get_tensor(name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return array


def _read_json(path: Path) -> ActionPolicy:
    """Return the Q-table in a JSON file that `agents/tabular_q.py` saved."""
    content = _parse_json(path.read_text(encoding="utf-8"), MAX_FILE_BYTES)
    if content.get("format") != q_table.FORMAT:
        raise ValueError(f"format must be {q_table.FORMAT!r}")
    check_choice("protocol", content["protocol"], q_table.PROTOCOLS)
    default_features = q_table.DEFAULT_FEATURES[content["protocol"]]
    parameters = {
        "features": content.get("features") or default_features,  # older files: absent
        "protocol": content["protocol"],
        "ties": content.get("ties", "keep"),
    }
    factors = content["settings"]["lr_factors"]
    config = MDPConfig(features=q_table.FEATURES, lr_factors=tuple(factors))
    return ActionPolicy(config, make_table(config, parameters, content["table"]))
