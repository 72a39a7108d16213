"""Files of laws of the loss curve: those in the package, and others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lr_gym.config import TrainingConfig
from lr_gym.files import parse_json, read_file
from lr_gym.surrogate.law import FORMAT, LawConstants, LossLaw
from lr_gym.validation import field_names

# Constants that files of earlier versions lack: their defaults change nothing.
_LATER = ("slow_noise_share", "slow_noise_pace")


def load_law(path: str | os.PathLike[str]) -> LossLaw:
    """Read a law that `LossLaw.save` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, has another format, or is not a law.
    """
    try:
        return _read(parse_json(read_file(path)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a law of the loss: {error}") from error


def packaged_laws() -> dict[tuple[str, str], Path]:
    """Return the files of the laws in the package, by corpus and scale."""
    files = {}
    for path in sorted((Path(__file__).parent / "laws").glob("*.json")):
        corpus, _, scale = path.stem.rpartition("-")
        files[corpus, scale] = path
    return files


def packaged_law(corpus: str, scale: str) -> LossLaw:
    """Return the law in the package for a corpus at a scale.

    Raises:
        ValueError: There is none.
    """
    files = packaged_laws()
    if (corpus, scale) not in files:
        available = ", ".join(f"{name} at {size}" for name, size in files)
        raise ValueError(
            f"no law of the loss for corpus {corpus!r} at scale {scale!r}; there are "
            f"laws for {available or 'none'}. Fit one with "
            "python -m benchmarks.surrogate.fitting and pass its file: "
            "trainer='law.json'"
        )
    return load_law(files[corpus, scale])


def _read(content: object) -> LossLaw:
    """Return the law in a JSON value; raise ValueError or TypeError if it is none."""
    content = _mapping("the file", content)
    if content.get("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {content.get('format')!r}")
    content = {"ensemble": [], "errors": []} | content  # earlier files have neither
    _exact_keys("the file", content, {"format", *field_names(LossLaw)})
    training = _mapping("training", content["training"])
    _exact_keys("training", training, set(field_names(TrainingConfig)))
    for name in ("ensemble", "errors"):
        if not isinstance(content[name], list):
            raise ValueError(f"{name} must be a list, got {content[name]!r}")
    return LossLaw(
        training=TrainingConfig(**training),
        constants=_constants("constants", content["constants"]),
        lowest_rate=content["lowest_rate"],
        highest_rate=content["highest_rate"],
        entropy_rate=content["entropy_rate"],
        runs=content["runs"],
        ensemble=tuple(_constants("ensemble", one) for one in content["ensemble"]),
        errors=tuple(content["errors"]),
    )


def _constants(name: str, value: object) -> LawConstants:
    constants = _mapping(name, value)
    known = set(field_names(LawConstants))
    _exact_keys(name, dict.fromkeys(_LATER, 0.0) | constants, known)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in constants.items()
    }
    return LawConstants(**values)


def _mapping(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, got {type(value).__name__}")
    return value


def _exact_keys(name: str, value: Mapping[str, Any], expected: set[str]) -> None:
    if set(value) != expected:
        missing = sorted(expected - set(value))
        extra = sorted(set(value) - expected)
        raise ValueError(f"{name} lacks {missing} and has unknown {extra}")
