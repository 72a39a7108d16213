"""The inputs of a job that its fields only name: code, an agent's files, a text."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import lr_gym
from agents.agent import ENVS
from benchmarks import dependencies
from benchmarks.comparison.methods import METHODS, SAVED_SUFFIXES, VARIANTS
from benchmarks.dependencies import imported_names


def current_inputs(method: str) -> dict[str, str | None]:
    """Return the hashes of the package's code and of the files of `method`."""
    return {"code": code_hash(), "agent": agent_hash(method)}


def code_hash() -> str:
    """Return the hash of the code that runs jobs, as this process found it."""
    return dependencies.code_hash("benchmarks.comparison.jobs")


def agent_hash(method: str) -> str | None:
    """Return the hash of an agent's files; `None` for a method of the package.

    A class's files are its source and the modules that it imports, directly or through
    others, except those of lr_gym, the standard library and installed packages.
    """
    if method in METHODS | VARIANTS:
        return None
    if method.endswith(SAVED_SUFFIXES):
        return _hash([Path(method)])
    source, _, _ = method.rpartition(":")
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(source).stem, source)
    else:
        spec = importlib.util.find_spec(source)
    if spec is None or spec.origin is None:
        raise ValueError(f"agent {method!r} cannot be loaded: {source} is absent")
    paths: list[Path] = []
    _follow(spec, paths)
    return _hash(paths)


def text_has_changed(
    record: dict[str, Any], env: str, settings: dict[str, Any]
) -> bool:
    """Return whether the text of `env` differs from the one that `record` trained on.

    A record that names no code comes from an archive; the published texts of archives
    can be partial copies, so only users' texts are compared.
    """
    if "inputs" not in record and env in ENVS:
        return False
    corpus = lr_gym.load_corpus(env, test_fraction=settings.get("test_fraction"))
    return bool(corpus.sha256 != record["corpus"]["sha256"])


def _hash(paths: list[Path]) -> str:
    """Return one hash of the files' names and contents."""
    total = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".py":  # a checkout can change the ends of lines
            content = content.replace(b"\r\n", b"\n")
        total.update(f"{path.name} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:16]


def _follow(spec: ModuleSpec, paths: list[Path]) -> None:
    """Append a module's file to `paths`, then those of the modules that it imports."""
    path = Path(str(spec.origin))
    if path in paths or path.suffix != ".py":
        return
    paths.append(path)
    package = spec.parent or ""
    for name in imported_names(ast.parse(path.read_bytes()), package):
        found = _find(name, path.parent)
        if found is not None:
            _follow(found, paths)


def _find(name: str, folder: Path) -> ModuleSpec | None:
    """Return the module's spec if its source belongs to the project or the agent."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("lr_gym", ""):
        return None
    try:
        spec = importlib.util.find_spec(top)
        if spec is not None and _is_installed(spec):
            return None
        if spec is not None and name != top:
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is not None and spec.origin is not None:
        return spec
    # An agent can put its folder on the path when it is loaded.
    beside = folder / f"{name.replace('.', '/')}.py"
    return (
        importlib.util.spec_from_file_location(name, beside)
        if beside.is_file()
        else None
    )


def _is_installed(spec: ModuleSpec) -> bool:
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return any(
        Path(place).is_relative_to(root) for place in places for root in installed
    )
