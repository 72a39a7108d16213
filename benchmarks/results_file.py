"""Result files: JSON with provenance, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.paths import RESULTS
from benchmarks.provenance import provenance
from lr_gym.files import only_process, read_json_object, write_text


def write_result(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write a result with its provenance; return the content of the file."""
    result = {**content, "provenance": provenance()}
    write_json(path, result)
    return result


def update_result(path: Path, key: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Replace one entry of a file that keeps several results by key.

    Args:
        path: The file; it is created if it is missing.
        key: Names the result, such as its corpus and scale.
        content: The result; its provenance is added.

    Returns:
        All results of the file.
    """
    result = {**content, "provenance": provenance()}
    with changing(path):
        results = read_results(path)
        results[key] = result
        write_json(path, results)
    return results


def changing(path: Path) -> AbstractContextManager[None]:
    """Return a context in which no other process reads `path` in order to change it."""
    return only_process(path.with_name(f".{path.name}.lock"), wait=True)


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a result file, or {} if there is no file.

    Raises:
        ValueError: The file does not hold a JSON object.
    """
    if not path.is_file():
        return {}
    return read_json_object(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result file atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def committed(name: str) -> dict[str, Any]:
    """Return the content of `name`, a path below benchmarks/results."""
    content: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return content
