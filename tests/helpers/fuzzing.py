"""Hypothesis strategies for damaged inputs, and a judge of the errors they cause.

`refused` tells an error that the project raises on purpose from a crash.
"""

from __future__ import annotations

import atexit
import copy
import json
import linecache
import math
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lr_gym import CORPUS_NAMES

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))  # 0: few, always the same
FOLDER = tempfile.TemporaryDirectory(prefix="lr_gym_fuzz_")  # of this process
atexit.register(FOLDER.cleanup)
CREATOR = " was raised from the environment creator"
DELIBERATE = (ValueError, TypeError, KeyError, ImportError, OSError)


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Return the settings of a fuzz test, which has `examples` in the quick suite."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def refused(function: Callable[[], object]) -> bool:
    """Call `function`; return whether it raised an error on purpose.

    Such an error comes from a ``raise`` statement of the project, or from Gymnasium, or
    it is the system's and names a file. Another error is a crash and is raised again.
    """
    try:
        function()
    except DELIBERATE as raised:
        error: BaseException = raised
        if CREATOR in str(raised) and raised.__cause__ is not None:
            error = raised.__cause__  # Gymnasium raised it again, with more words
        if not str(error) or not (_raised_here(error) or _of_a_file(error)):
            raise
        return True
    except (gym.error.Error, SystemExit):
        return True
    return False


def written(name: str, content: bytes) -> Path:
    """Return a temporary file with this content, under a name that stays the same."""
    path = Path(FOLDER.name) / name
    path.write_bytes(content)
    return path


def _raised_here(error: BaseException) -> bool:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(frame.filename).is_relative_to(ROOT)
    line = linecache.getline(frame.filename, frame.lineno or 0)
    return ours and line.lstrip().startswith("raise ")


def _of_a_file(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.filename is not None


# ---------------------------------------------------------------------------- values

NUMBERS = st.sampled_from(
    [
        *(0, 1, -1, 2, 3, 7, 2**31, 2**63, 2**64, -(2**63), 10**18, 10**400),
        *(0.0, -0.0, 0.5, 1.0, 1e-3, 1.5, 1e-9, 1e-45, 5e-324, 1e30, 1e38, 1e308),
        *(-1.0, math.nan, math.inf, -math.inf, True, False),
    ]
)
POSITIVE = st.floats(-30.0, 30.0).map(lambda exponent: 10.0**exponent)
# Hypothesis also draws words of the source: no name of a text that would be downloaded.
WORDS = st.text(max_size=8).filter(lambda word: word not in CORPUS_NAMES)
SCALARS = NUMBERS | st.none() | WORDS | st.integers() | st.floats()
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
OBJECTS = st.sampled_from(
    [
        *(np.int64(3), np.float32(0.5), np.float64(math.nan), np.True_, np.str_("a")),
        *(np.array(3), np.array(0.5), np.array([1, 2]), np.zeros((2, 2)), 1j, b"x"),
        *(object(), {1, 2}, range(2), (), (1, 2), {}, [[]], int, len, ..., "\0"),
        *("\ud800", "x" * 300, "../x", "auto", "cpu", "meta", "cuda:7", Path("x")),
    ]
)
ANYTHING = JSON | OBJECTS
TENSORS = st.sampled_from(
    [
        torch.tensor(1),
        torch.tensor(1.0, requires_grad=True),
        torch.tensor([1.0, 0.5], dtype=torch.bfloat16),
        torch.ones(2, device="meta"),
        torch.ones(2).to_sparse(),
    ]
)


RARELY = st.integers(0, 9).map(lambda number: number == 0)


@st.composite
def mostly(
    draw: st.DrawFn, usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any]
) -> Any:
    """Draw from `usual`, and once in a while from `other`."""
    return draw(other if draw(RARELY) else usual)


DEEPER = st.integers(0, 9).map(bool)  # mostly true
CHANGES = ["scale", "replace", "number", "delete", "add", "shape"]


@st.composite
def changed_json(draw: st.DrawFn, valid: Any) -> Any:
    """Draw a copy of a JSON value with one to three entries changed at any depth."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        if not isinstance(content, dict | list) or not content:
            break
        _change(draw, content)
    return content


def _change(draw: st.DrawFn, target: Any) -> None:
    """Change one entry of a dict or list, or of one that it holds, in place."""
    while True:
        places = range(len(target)) if isinstance(target, list) else sorted(target)
        key = draw(st.sampled_from(list(places)))
        inner = target[key]
        if not isinstance(inner, dict | list) or not inner or not draw(DEEPER):
            break
        target = inner
    numeric = isinstance(inner, int | float)
    how = draw(st.sampled_from(["scale", "number"] * 6 * numeric + CHANGES))
    if how == "scale" and numeric and abs(inner) < 2**64:
        target[key] = inner * 10.0 ** draw(st.integers(-40, 40))
    elif how == "delete":
        del target[key]
    elif how == "add" and isinstance(target, list):
        target.insert(key, draw(JSON))
    elif how == "add":
        target[draw(st.text(max_size=5))] = draw(JSON)
    elif how == "shape":
        target[key] = draw(st.sampled_from([[inner], {"a": inner}, str(inner), [[]]]))
    else:
        target[key] = draw(NUMBERS if how == "number" else JSON)


def json_text(value: Any) -> bytes:
    """Return a JSON value as bytes; NaN and unpaired surrogates are kept."""
    return json.dumps(value).encode()


@st.composite
def damaged_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """Draw a file's bytes, changed, cut or with other bytes inserted."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        how = draw(st.sampled_from(["change", "cut", "insert", "repeat"]))
        if how == "cut":
            del content[place : place + draw(st.integers(1, 64))]
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=16) | SNIPPETS)
        elif how == "repeat":
            content[place:place] = content[:place][-32:]
        else:
            content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(content)


SNIPPETS = st.sampled_from(
    [
        *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\xed\xa0\x80"),
        *(b"[" * 2_000, b'{"a":' * 2_000, b"1" * 5_000, b"NaN", b"-Infinity", b"1e999"),
        *(b'"\\ud800"', b"null", b"true", b"{}", b"[]", b"\xf4\x8f\xbf\xbf"),
    ]
)


@st.composite
def damaged_json(draw: st.DrawFn, valid: Any) -> bytes:
    """Draw a JSON file with changed entries or changed bytes."""
    if draw(st.integers(0, 3)):
        return json_text(draw(changed_json(valid)))
    return draw(damaged_bytes(json_text(valid)))
