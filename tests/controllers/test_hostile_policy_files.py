"""Damaged and hostile policy files: an error with a reason, or a valid policy."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO

import lr_gym
from agents.tabular_q import TabularQ
from lr_gym.controllers import (
    ActionPolicy,
    RampAndUndo,
    UpdateSizeRule,
    save_policy,
)
from lr_gym.controllers.policies.policy_file import FORMAT, KEY
from tests.helpers.small import small_env

SETTINGS: dict[str, Any] = {
    "features": ("log_excess_loss", "log_learning_rate", "progress", "loss_slope"),
    "max_iters": 40,
}


@lru_cache(maxsize=1)
def valid_files() -> tuple[bytes, ...]:
    """Return one valid file of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        return _valid_files(Path(folder))


def _valid_files(folder: Path) -> tuple[bytes, ...]:
    random = np.random.default_rng(0)
    env = small_env(**SETTINGS)
    model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, seed=0)
    lr_gym.export_policy(model, folder / "mlp")
    agent = TabularQ()
    agent.table = {(float(i), -5.0): random.random(3).tolist() for i in range(5)}
    agent.save(folder / "table.json")
    table = lr_gym.load_controller(folder / "table.json")
    assert isinstance(table, ActionPolicy)
    save_policy(table, folder / "table")
    save_policy(RampAndUndo(), folder / "rule")
    save_policy(UpdateSizeRule(), folder / "ratio")
    names = ("mlp", "table", "rule", "ratio")
    return tuple((folder / name).read_bytes() for name in names)


def reason(path: Path) -> str | None:
    """Return why the file is refused; another error than ValueError fails the test."""
    try:
        lr_gym.load_controller(path)
    except ValueError as error:
        return str(error)
    return None


def check_refused_or_valid(path: Path) -> None:
    message = reason(path)
    if message is not None:
        prefix, _, rest = message.partition(" is refused: ")
        assert prefix == str(path)
        assert rest
        return
    policy = lr_gym.load_controller(path)
    policy.reset(20)
    low, high = lr_gym.mdp.observation_bounds(policy.config)
    for observation in (low, high, (low + high) / 2):
        decision = policy.act(observation)
        assert np.isfinite(decision.factor)
        assert decision.factor > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a valid file, damaged in its bytes, its header or its arrays."""
    content = draw(st.sampled_from(valid_files()))
    damage = draw(st.sampled_from(["bytes", "cut", "grow", "header", "arrays"]))
    if damage == "bytes":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            # The header, at the start, matters most.
            place = draw(st.integers(0, min(len(content), 2_000) - 1))
            changed[place] = draw(st.integers(0, 255))
        return bytes(changed)
    if damage == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    if damage == "grow":
        place = draw(st.integers(0, len(content)))
        return content[:place] + draw(st.binary(max_size=64)) + content[place:]
    arrays = dict(safetensors.numpy.load(content))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])
    if damage == "header":
        target = header
        while True:  # choose an entry at any depth, to replace or rename it
            key = draw(st.sampled_from(sorted(target)))
            if not (
                isinstance(target[key], dict) and target[key] and draw(st.booleans())
            ):
                break
            target = target[key]
        if draw(st.booleans()):
            target[key] = draw(JSON)
        else:
            target[draw(st.text(max_size=5))] = target.pop(key)
    elif arrays:
        name = draw(st.sampled_from(sorted(arrays)))
        change = draw(st.integers(0, 4))
        arrays[name] = (
            arrays[name][:-1],
            arrays[name].astype(np.float16),
            np.full_like(arrays[name], draw(st.floats(width=16))),
            arrays[name].T.copy(),
            arrays[name][..., None],
        )[change]
    return safetensors.numpy.save(arrays, {KEY: json.dumps(header)})


def fuzz(examples: int) -> Callable[[Any], Any]:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=quiet,
    )


@fuzz(100)
@given(content=damaged())
def test_damaged_files_are_refused_or_valid(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "policy").write_bytes(content)
    check_refused_or_valid(tmp_path / "policy")


@pytest.mark.slow
@fuzz(1_000)
@given(content=damaged())
def test_a_thousand_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "policy").write_bytes(content)
    check_refused_or_valid(tmp_path / "policy")


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
        ({"mdp": {"lr_factors": [10**400]}}, "OverflowError"),
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
