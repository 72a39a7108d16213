"""Policies as files: safetensors, with a JSON header in its metadata. No pickle.

The header is one JSON object under the metadata key ``lr_gym``:

==============  ====================================================================
``format``      `FORMAT`
``kind``        ``mlp``, ``q_table``, or one of `RULES`
``mdp``         fields of `lr_gym.MDPConfig`: features, factors, undo, spacing, bounds
``parameters``  what the kind needs beside its arrays
``provenance``  where the policy comes from; read by people only
==============  ====================================================================

A file is data: reading one runs nothing in it. One that is damaged, made for another
purpose or too large is refused with a ValueError that says why.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies import q_table
from lr_gym.controllers.policies.mlp import MLP, Normaliser
from lr_gym.controllers.policies.policy import ActionPolicy, Policy
from lr_gym.controllers.policies.q_table import QTable
from lr_gym.controllers.policies.ramp_and_undo import RampAndUndo
from lr_gym.controllers.policies.rule import Rule
from lr_gym.controllers.policies.update_size_rule import UpdateSizeRule
from lr_gym.files import write_bytes
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_choice, check_keywords, field_names

FORMAT = "lr-gym policy 2"
KEY = "lr_gym"  # of the safetensors metadata
LARGEST_FILE = 64 * 2**20  # bytes
LARGEST_HEADER = 256 * 2**10  # bytes of JSON
MOST_LAYERS = 16
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

Arrays = dict[str, NDArray[Any]]
Parameters = Mapping[str, Any]


def load_controller(name_or_path: str | os.PathLike[str]) -> Policy:
    """Return a policy by name, or from a file.

    Args:
        name_or_path: ``default`` or ``update_size``, the update-size rule;
            ``default_without_undo``, the same where nothing can be taken back;
            ``ramp_and_undo``, the rule of that name; the path of a policy file; or that
            of a table that `agents/tabular_q.py` saved (``.json``).

    Raises:
        TypeError: It is neither a name nor a path.
        ValueError: The name is unknown, or the file is not a policy; says why.

    >>> load_controller("default").config.allow_undo
    True
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(f"policy must be a name or a path, got {name_or_path!r}")
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return BUILT_IN[name]()
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"policy must be one of {', '.join(BUILT_IN)}, or the path of a policy "
            f"file; got {name!r}, which is neither"
        )
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(
            f"{path} is refused: {size:,} bytes, a policy has at most {LARGEST_FILE:,}"
        )
    import safetensors

    try:
        return _read_json(path) if path.suffix == ".json" else _read_policy(path)
    except (TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is refused: {error!r}") from error
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is refused: {error}") from error


def save_policy(
    policy: ActionPolicy | Rule,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a policy to one file, whole or not at all.

    Args:
        policy: A rule, or a policy over an `MLP` or a `QTable`.
        path: The file; missing folders are made.
        provenance: Where it comes from; kept as it is, must be JSON.

    Raises:
        TypeError: The policy is of no known kind, or `provenance` is not JSON.
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
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"the header has {len(text):,} characters, at most {LARGEST_HEADER:,} "
            "are allowed: shorten provenance"
        )
    import safetensors.numpy

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(os.fspath(path), safetensors.numpy.save(arrays, {KEY: text}))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return where a policy file says it comes from; ValueError if it is not one."""
    import safetensors

    load_controller(path)  # refuses whatever is not whole
    with safetensors.safe_open(os.fspath(path), framework="np") as file:
        provenance: dict[str, Any] = json.loads(file.metadata()[KEY])["provenance"]
    return provenance


# -------------------------------------------------------------------------- writing


def _describe(policy: ActionPolicy | Rule) -> tuple[str, Parameters, Arrays]:
    """Return kind, parameters and arrays."""
    for kind, rule in RULES.items():
        if type(policy) is rule:
            return kind, policy.parameters, {}
    head = policy.head if isinstance(policy, ActionPolicy) else None
    if isinstance(head, MLP):
        return "mlp", *_describe_mlp(head)
    if isinstance(head, QTable):
        parameters = {
            "features": head.features,
            "protocol": head.protocol,
            "ties": head.ties,
        }
        states = np.array(list(head.table), dtype=np.float64)
        values = np.array(list(head.table.values()), dtype=np.float64)
        return (
            "q_table",
            parameters,
            {
                "states": states.reshape(-1, len(head.features)),
                "values": values.reshape(-1, head.actions),
            },
        )
    raise TypeError(f"policy must be a rule, an MLP or a table, got {policy!r}")


def _describe_mlp(head: MLP) -> tuple[Parameters, Arrays]:
    parameters: dict[str, Any] = {
        "layers": len(head.weights),
        "activation": head.activation,
        "normaliser": None,
    }
    arrays: Arrays = {}
    for i, (weight, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
        arrays |= {f"layer{i}.weight": weight, f"layer{i}.bias": bias}
    if head.normaliser is not None:
        normaliser = head.normaliser
        parameters["normaliser"] = {
            "epsilon": normaliser.epsilon,
            "clip": normaliser.clip,
        }
        arrays["normaliser.mean"] = normaliser.mean
        arrays["normaliser.variance"] = normaliser.variance
    return parameters, arrays


# -------------------------------------------------------------------------- reading


def _read_policy(path: Path) -> Policy:
    import safetensors

    with safetensors.safe_open(path, framework="np") as file:
        header = _parse_header((file.metadata() or {}).get(KEY))
        arrays = {name: _read_array(file, name) for name in file.keys()}  # noqa: SIM118 - no mapping
    config = MDPConfig(**header["mdp"])
    parameters = header["parameters"]
    if header["kind"] in RULES:
        rule = RULES[header["kind"]](**parameters)
        _expect(arrays, {})
        if rule.config != config:
            raise ValueError("mdp and parameters contradict each other")
        return rule
    if header["kind"] == "mlp":
        return ActionPolicy(config, _build_mlp(config, parameters, arrays))
    return ActionPolicy(config, _build_table(config, parameters, arrays))


def _parse_header(text: str | None) -> dict[str, Any]:
    """Return the header with known keys, each of the right type."""
    if text is None:
        raise ValueError(f"its metadata has no {KEY!r}: not a policy file")
    header = _parse_json(text, LARGEST_HEADER)
    if header.get("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}, got {header.get('format')!r}")
    known = ("format", "kind", "mdp", "parameters", "provenance")
    check_keywords("the header", header, known)
    check_choice("kind", header["kind"], ("mlp", "q_table", *RULES))
    for name in known[2:]:
        if not isinstance(header[name], dict):
            raise ValueError(f"{name} must be an object, got {header[name]!r}")
    check_keywords("mdp", header["mdp"], field_names(MDPConfig))
    return header


def _parse_json(text: str, limit: int) -> dict[str, Any]:
    if len(text) > limit:
        raise ValueError(f"{len(text):,} characters of JSON, at most {limit:,}")

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    if not isinstance(content, dict):
        raise ValueError("the JSON is not an object")
    return content


def _read_array(file: Any, name: str) -> NDArray[Any]:  # noqa: ANN401 - untyped library
    dtype = file.get_slice(name).get_dtype()
    if dtype not in DTYPES:
        raise ValueError(f"{name} is {dtype}, allowed are {', '.join(DTYPES)}")
    array: NDArray[Any] = file.get_tensor(name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return array


def _expect(arrays: Arrays, kinds: Mapping[str, tuple[type, int]]) -> None:
    """Raise unless `arrays` are just those of `kinds`: name to (dtype, dimensions)."""
    if set(arrays) != set(kinds):
        raise ValueError(f"arrays must be {sorted(kinds)}, got {sorted(arrays)}")
    for name, (dtype, dimensions) in kinds.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != dimensions:
            raise ValueError(
                f"{name} must be {dimensions}-dimensional {dtype.__name__}, got "
                f"{array.ndim}-dimensional {array.dtype}"
            )


def _build_mlp(config: MDPConfig, parameters: Parameters, arrays: Arrays) -> MLP:
    check_keywords("parameters", parameters, ("layers", "activation", "normaliser"))
    layers = parameters["layers"]
    if type(layers) is not int or not 1 <= layers <= MOST_LAYERS:
        raise ValueError(f"layers must be in [1, {MOST_LAYERS}], got {layers!r}")
    kinds: dict[str, tuple[type, int]] = {}
    for i in range(layers):
        kinds[f"layer{i}.weight"] = (np.float32, 2)
        kinds[f"layer{i}.bias"] = (np.float32, 1)
    settings = parameters["normaliser"]
    if settings is not None:
        check_keywords("normaliser", settings, ("epsilon", "clip"))
        kinds["normaliser.mean"] = kinds["normaliser.variance"] = (np.float64, 1)
    _expect(arrays, kinds)
    normaliser = None
    if settings is not None:
        mean, variance = arrays["normaliser.mean"], arrays["normaliser.variance"]
        normaliser = Normaliser(mean, variance, settings["epsilon"], settings["clip"])
    mlp = MLP(
        weights=tuple(arrays[f"layer{i}.weight"] for i in range(layers)),
        biases=tuple(arrays[f"layer{i}.bias"] for i in range(layers)),
        activation=parameters["activation"],
        continuous=config.action_type == "continuous",
        normaliser=normaliser,
    )
    mlp.check(config)
    return mlp


def _build_table(config: MDPConfig, parameters: Parameters, arrays: Arrays) -> QTable:
    check_keywords("parameters", parameters, ("features", "protocol", "ties"))
    _expect(arrays, {"states": (np.float64, 2), "values": (np.float64, 2)})
    states, values = arrays["states"].tolist(), arrays["values"].tolist()
    if len(states) != len(values):
        raise ValueError(f"{len(states)} states, but {len(values)} rows of values")
    rows = [[*state, row] for state, row in zip(states, values, strict=True)]
    return _table(config, parameters, rows)


def _table(config: MDPConfig, parameters: Parameters, rows: list[Any]) -> QTable:
    if config.features != q_table.FEATURES or config.allow_undo:
        raise ValueError(f"a table needs features={q_table.FEATURES} and no undo")
    features = tuple(parameters["features"])
    actions = len(config.lr_factors)
    return QTable(
        table=q_table.read_table(rows, len(features), actions),
        features=features,
        protocol=parameters["protocol"],
        ties=parameters["ties"],
        actions=actions,
        keep_action=config.keep_action,
    )


def _read_json(path: Path) -> ActionPolicy:
    """Read what `agents/tabular_q.py` saves."""
    content = _parse_json(path.read_text(encoding="utf-8"), LARGEST_FILE)
    if content.get("format") != q_table.FORMAT:
        raise ValueError(f"format must be {q_table.FORMAT!r}")
    check_choice("protocol", content["protocol"], q_table.PROTOCOLS)
    default = q_table.DEFAULT_FEATURES[content["protocol"]]
    parameters = {
        "features": content.get("features") or default,  # absent in older files
        "protocol": content["protocol"],
        "ties": content.get("ties", "keep"),
    }
    factors = content["settings"]["lr_factors"]
    config = MDPConfig(features=q_table.FEATURES, lr_factors=tuple(factors))
    return ActionPolicy(config, _table(config, parameters, content["table"]))
