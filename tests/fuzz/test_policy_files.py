"""A damaged policy file is refused, or holds a policy that acts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import lr_gym
from lr_gym.controllers.policies.policy_file import KEY
from tests.helpers.fuzzing import changed_json, damaged_bytes, fuzz, refused, written
from tests.helpers.policy_files import valid_files


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a valid file, damaged in its bytes, its header or its arrays."""
    content = draw(st.sampled_from(valid_files()))
    damage = draw(st.sampled_from(["bytes", "header", "header", "arrays"]))
    size = int.from_bytes(content[:8], "little")
    if damage == "bytes":
        whole = draw(damaged_bytes(content))
        header = draw(damaged_bytes(content[8 : 8 + size]))
        short = len(header).to_bytes(8, "little") + header + content[8 + size :]
        return draw(st.sampled_from([whole, short]))
    arrays = dict(safetensors.numpy.load(content))
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])
    if damage == "header":
        header = draw(changed_json(header))
    elif arrays:
        name = draw(st.sampled_from(sorted(arrays)))
        change = draw(st.integers(0, 5))
        arrays[name] = (
            arrays[name][:-1],
            arrays[name].astype(np.float16),
            np.full_like(arrays[name], draw(st.floats(width=16))),
            np.full_like(arrays[name], draw(st.floats(width=32))),
            arrays[name].T.copy(),
            arrays[name][..., None],
        )[change]
    return safetensors.numpy.save(arrays, {KEY: json.dumps(header)})


def act(path: Path) -> None:
    policy = lr_gym.load_controller(path)
    policy.reset(20)
    low, high = lr_gym.mdp.observation_bounds(policy.config)
    for observation in (low, high, (low + high) / 2):
        decision = policy.act(observation)
        assert np.isfinite(decision.factor)
        assert decision.factor > 0
    lr_gym.controllers.read_provenance(path)


@fuzz(60)
@given(content=damaged())
def test_a_damaged_policy_is_refused_or_valid(content: bytes) -> None:
    path = written("policy", content)
    refused(lambda: act(path))
