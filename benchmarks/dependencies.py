"""A hash of the code that a script's numbers depend on.

The script's imports are followed through the project, without running them. Each
module is hashed by its syntax tree without docstrings and without the messages of
errors, so words and formatting do not count as changes.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

from benchmarks.paths import ROOT

FOLDERS = ("lr_gym", "agents", "benchmarks", "examples")
WITH_DATA = ("lr_gym", "agents")  # such as fitted laws
# They write results and draw them; no number depends on them.
NO_NUMBERS = tuple(
    f"benchmarks.{name}"
    for name in (
        "dependencies",
        "drawing",
        "event_files",
        "paths",
        "provenance",
        "results_file",
        "table_text",
    )
)


class Sources:
    """The project's modules in one checkout; each file is read once."""

    def __init__(self, root: Path = ROOT) -> None:
        """Take the checkout at `root`."""
        self.root = root
        self._digests: dict[Path, str] = {}
        self._imports: dict[Path, list[str]] = {}

    def code_hash(self, *modules: str, within: str = "") -> str:
        """Return the hash of the code of `modules` and of all that they import.

        Args:
            modules: Names of modules of the project.
            within: Only modules of this package count; by default all do.
        """
        total = hashlib.sha256()
        folder = self.root / within.replace(".", "/")
        for path in self.files(*modules):
            if not path.is_relative_to(folder):
                continue
            if path not in self._digests:
                self._digests[path] = hashlib.sha256(_content(path)).hexdigest()
            name = path.relative_to(self.root).as_posix()
            total.update(f"{name} {self._digests[path]}\n".encode())
        return total.hexdigest()[:16]

    def files(self, *modules: str) -> list[Path]:
        """Return the files of `modules` and of all project modules that they import.

        Data files of `WITH_DATA` count with the package that holds them.

        Raises:
            ValueError: One of `modules` is not in the project.
        """
        for module in modules:
            if self._file(module) is None:
                raise ValueError(f"{module} is no module of the project")
        found: dict[Path, None] = {}
        waiting = list(modules)
        while waiting:
            name = waiting.pop()
            path = self._file(name)
            if path is None or path in found or name in NO_NUMBERS:
                continue
            found[path] = None
            waiting += self._imported(path, name)
        for source in [path for path in found if path.name == "__init__.py"]:
            if source.relative_to(self.root).parts[0] in WITH_DATA:
                found |= dict.fromkeys(_data_files(source.parent))
        return sorted(found)

    def _file(self, name: str) -> Path | None:
        """Return the source of a module; `None` if it is not in the project."""
        if name.partition(".")[0] not in FOLDERS:
            return None
        place = self.root / name.replace(".", "/")
        for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if path.is_file():
                return path
        return None

    def _imported(self, path: Path, name: str) -> list[str]:
        if path not in self._imports:
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            names = imported_names(ast.parse(path.read_bytes()), package)
            parents = [name.rpartition(".")[0]]  # Python runs packages first
            self._imports[path] = [*parents, *names]
        return self._imports[path]


_CHECKOUT = Sources()


def code_hash(*modules: str) -> str:
    """Return the hash of the modules' code, as this process first found it."""
    return _CHECKOUT.code_hash(*modules)


def changed_since(moment: float, *modules: str) -> bool:
    """Return whether a file of the modules' code has changed since a Unix time."""
    return any(f.stat().st_mtime > moment for f in _CHECKOUT.files(*modules))


def imported_names(tree: ast.Module, package: str) -> list[str]:
    """Return the absolute names of all modules that a source of `package` imports."""
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = resolve_name(base, package) if node.level else base
            names[base] = None
            # An imported name can be a module of the package.
            names |= dict.fromkeys(f"{base}.{alias.name}" for alias in node.names)
    return list(names)


class _WithoutWords(ast.NodeTransformer):
    """Removes docstrings and the messages of errors."""

    def visit(self, node: ast.AST) -> ast.AST:
        """Remove the words of a node and of all nodes in it."""
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]  # it has a body
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return self.generic_visit(node)


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is only a string: a docstring, or a field's."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _content(path: Path) -> bytes:
    """Return what counts of a file: the code of a source, all bytes of data."""
    content = path.read_bytes()
    if path.suffix != ".py":
        return content.replace(b"\r\n", b"\n")  # a checkout can change the ends
    return _dump(_WithoutWords().visit(ast.parse(content))).encode()


_EMPTY = "Constant(value='')"


def _dump(node: object) -> str:
    """Return a syntax tree as text, the same in every version of Python.

    Versions differ in fields that are empty, so these are left out.
    """
    if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty parts
        parts = [part for part in map(_dump, node.values) if part != _EMPTY]
        return f"JoinedStr([{', '.join(parts)}])"
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={_dump(value)}"
            for name, value in ast.iter_fields(node)
            if value is not None and value != [] and name != "kind"
        ]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    return ascii(node)


def _data_files(package: Path) -> Iterator[Path]:
    """Yield the data of a package: its own files, and folders without modules."""
    for path in package.iterdir():
        if path.name == "__pycache__" or path.suffix == ".py":
            continue
        if path.is_file():
            yield path
        elif not any(path.rglob("*.py")):
            yield from (inner for inner in path.rglob("*") if inner.is_file())
