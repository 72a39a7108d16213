"""The numbers in a result file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a result file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def numbers(content: Any) -> list[float]:  # noqa: ANN401 - any part of a JSON file
    """Return all numbers of a nested result, in order; NaN for `None`."""
    if isinstance(content, Mapping):
        return [x for name in sorted(content) for x in numbers(content[name])]
    if isinstance(content, list | tuple):
        return [x for part in content for x in numbers(part)]
    if content is None:
        return [float("nan")]
    if isinstance(content, int | float):
        return [float(content)]
    return []
