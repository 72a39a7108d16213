"""How policy files store an MLP and a Q-table: parameters and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lr_gym.controllers.policies import q_table
from lr_gym.controllers.policies.mlp import MLP, Normaliser
from lr_gym.controllers.policies.q_table import QTable
from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_keys

MAX_LAYERS = 16
Arrays: TypeAlias = dict[str, NDArray[Any]]
Parameters: TypeAlias = Mapping[str, Any]


def encode_mlp(mlp: MLP) -> tuple[Parameters, Arrays]:
    """Return parameters and arrays."""
    parameters: dict[str, Any] = {
        "layers": len(mlp.weights),
        "activation": mlp.activation,
        "normaliser": None,
    }
    arrays: Arrays = {}
    for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
        arrays |= {f"layer{i}.weight": weight, f"layer{i}.bias": bias}
    if mlp.normaliser is not None:
        normaliser = mlp.normaliser
        parameters["normaliser"] = {
            "epsilon": normaliser.epsilon,
            "clip": normaliser.clip,
        }
        arrays["normaliser.mean"] = normaliser.mean
        arrays["normaliser.variance"] = normaliser.variance
    return parameters, arrays


def encode_table(table: QTable) -> tuple[Parameters, Arrays]:
    """Return parameters and arrays."""
    parameters = {
        "features": table.features,
        "protocol": table.protocol,
        "ties": table.ties,
    }
    states = np.array(list(table.table), dtype=np.float64)
    values = np.array(list(table.table.values()), dtype=np.float64)
    arrays: Arrays = {
        "states": states.reshape(-1, len(table.features)),
        "values": values.reshape(-1, table.actions),
    }
    return parameters, arrays


def decode_mlp(config: MDPConfig, parameters: Parameters, arrays: Arrays) -> MLP:
    """Return the network of a file."""
    check_keys("parameters", parameters, ("layers", "activation", "normaliser"))
    layers = parameters["layers"]
    if type(layers) is not int or not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"layers must be in [1, {MAX_LAYERS}], got {layers!r}")
    expected: dict[str, tuple[type, int]] = {}
    for i in range(layers):
        expected[f"layer{i}.weight"] = (np.float32, 2)
        expected[f"layer{i}.bias"] = (np.float32, 1)
    settings = parameters["normaliser"]
    if settings is not None:
        check_keys("normaliser", settings, ("epsilon", "clip"))
        expected["normaliser.mean"] = (np.float64, 1)
        expected["normaliser.variance"] = (np.float64, 1)
    check_arrays(arrays, expected)
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


def decode_table(config: MDPConfig, parameters: Parameters, arrays: Arrays) -> QTable:
    """Return the Q-table of a safetensors file."""
    check_keys("parameters", parameters, ("features", "protocol", "ties"))
    check_arrays(arrays, {"states": (np.float64, 2), "values": (np.float64, 2)})
    states, values = arrays["states"].tolist(), arrays["values"].tolist()
    if len(states) != len(values):
        raise ValueError(
            f"states and values must have equal lengths, got {len(states)} and "
            f"{len(values)}"
        )
    entries = [[*state, row] for state, row in zip(states, values, strict=True)]
    return make_table(config, parameters, entries)


def make_table(config: MDPConfig, parameters: Parameters, entries: Any) -> QTable:  # noqa: ANN401 - unchecked JSON
    """Return the Q-table with ``[*state, values]`` entries."""
    if config.features != q_table.FEATURES or config.allow_undo:
        raise ValueError(f"a Q-table needs features={q_table.FEATURES} and no undo")
    features = tuple(parameters["features"])
    actions = len(config.lr_factors)
    return QTable(
        table=q_table.read_table(entries, len(features), actions),
        features=features,
        protocol=parameters["protocol"],
        ties=parameters["ties"],
        actions=actions,
        keep_action=config.keep_action,
    )


def check_arrays(arrays: Arrays, expected: Mapping[str, tuple[type, int]]) -> None:
    """Raise unless `arrays` has the `expected` names, dtypes and dimensions."""
    if set(arrays) != set(expected):
        raise ValueError(f"arrays must be {sorted(expected)}, got {sorted(arrays)}")
    for name, (dtype, dimensions) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != dimensions:
            raise ValueError(
                f"{name} must be {dimensions}-dimensional {dtype.__name__}, got "
                f"{array.ndim}-dimensional {array.dtype}"
            )
