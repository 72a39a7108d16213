"""Damaged and hostile policy files: an error with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import lr_gym
from lr_gym.controllers import RampAndUndo, save_policy
from lr_gym.controllers.policies.policy_file import FORMAT, KEY
from tests.helpers.policy_files import valid_files


def rewrite(path: Path, content: bytes, **changes: Any) -> None:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])
    arrays = safetensors.numpy.load(content)
    path.write_bytes(
        safetensors.numpy.save(arrays, {KEY: json.dumps(header | changes)})
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "lr-gym policy 9"}, f"format must be '{FORMAT}'"),
        ({"kind": "pickle"}, "kind must be one of mlp, q_table, rule"),
        ({"kind": "rule"}, "unexpected keyword argument"),
        ({"mdp": {"features": ["password"]}}, "features must be one of val_loss"),
        ({"mdp": {"min_lr": -1.0}}, "min_lr must be finite and in"),
        ({"mdp": {"lr_factors": [10**400]}}, "lr_factors must be finite"),
        ({"mdp": {"code": "1"}}, "unknown key 'code'"),
        ({"parameters": {"layers": 10**9}}, r"layers must be in \[1, 16\]"),
        ({"parameters": []}, "parameters must be an object"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_the_reason_is_given(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "policy"
    rewrite(path, valid_files()[0], **changes)
    with pytest.raises(ValueError, match=message):
        lr_gym.load_controller(path)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    torch.save({"a": torch.ones(1)}, path)  # a pickle
    with pytest.raises(ValueError, match="is refused"):
        lr_gym.load_controller(path)
    path.write_bytes(safetensors.numpy.save({"a": np.ones(1)}))
    with pytest.raises(ValueError, match="metadata has no 'lr_gym': not a policy file"):
        lr_gym.load_controller(path)
    path.write_bytes(safetensors.numpy.save({}, {KEY: "[" * 100_000}))
    with pytest.raises(ValueError, match="is refused"):
        lr_gym.load_controller(path)
    path.write_bytes(safetensors.numpy.save({}, {KEY: '{"format": NaN}'}))
    with pytest.raises(ValueError, match="NaN is not JSON"):
        lr_gym.load_controller(path)
    path.write_bytes(safetensors.numpy.save({}, {KEY: '"' + "x" * 300_000 + '"'}))
    with pytest.raises(ValueError, match="characters of JSON, at most 262,144"):
        lr_gym.load_controller(path)
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ValueError, match="at most 67,108,864 are allowed"):
        lr_gym.load_controller(path)


def test_a_header_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    with pytest.raises(ValueError, match="shorten provenance"):
        save_policy(RampAndUndo(), path, {"log": "x" * 300_000})
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_policy(RampAndUndo(), path, {"log": object()})
    with pytest.raises(
        TypeError, match="policy must be a rule, or an ActionPolicy with"
    ):
        save_policy("default", path)  # type: ignore[arg-type]  # the point
    assert not path.exists()
