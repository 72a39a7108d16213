"""Files of recorded runs: a damaged one is refused with a reason, and is closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lr_gym.surrogate.runs import load_runs, save_runs
from tests.helpers.laws import make_constants, planted_runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": None}, "it has no array 'rates'"),
        ({"name": np.array(3)}, "name must not be an array of int64"),
        ({"name": np.array("a")}, "name must not have 0 dimensions"),
        ({"seed": np.array([[1], [2]])}, "seed must not have 2 dimensions"),
        ({"val_loss": np.array([[1j]])}, "val_loss must not be an array of complex"),
        ({"rates": np.array(["a", "b"])}, "rates must not be an array of <U1"),
        ({"seed": np.array([1])}, "out of bounds"),
    ],
)
def test_a_wrong_array_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "runs.npz"
    save_runs(path, planted_runs(make_constants(), 0)[:2])
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(
        ValueError, match=rf"runs\.npz holds no recorded runs: .*{message}"
    ):
        load_runs(path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="it is a single array"):
        load_runs(path)
    save_runs(path, planted_runs(make_constants(), 0)[:2])
    content = path.read_bytes()
    end = content.index(b"PK\x05\x06")
    size = (10**6).to_bytes(4, "little")  # of the directory: more than the file has
    path.write_bytes(content[: end + 12] + size + content[end + 16 :])
    with pytest.raises(ValueError, match="holds no recorded runs"):
        load_runs(path)
    with pytest.raises(FileNotFoundError):
        load_runs(tmp_path / "absent.npz")
