"""The state of each committed result, from its provenance and the last check."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.checks.job_runs import records
from benchmarks.checks.registry import REGISTRY, Result
from benchmarks.checks.runs import DIFFERS
from benchmarks.dependencies import Sources
from benchmarks.paths import RESULTS
from benchmarks.results_file import read_results, write_json

LEDGER = RESULTS / "checks.json"
MADE_BY_THIS_CODE = "made by this code"
NOT_CHECKED = "older than the code, not checked"
SHOWN = 2  # this many runs of a sample are named
NO_CHECK = "older than the code; cannot be checked by a sample"
# In the report of a comparison, and on the page of the paper's tables.
NAMES = ("commit", "code", "machine")
IN_TEXT = re.compile(
    r"<dt>Commit</dt><dd><code>(?P<commit>\w+\+?)</code>"
    r"(?:, code <code>(?P<code>\w+)</code>)?</dd>"
    r".*?<dt>Machine</dt><dd>\w+ (?P<machine>\w+),"
    r"|, commit (?P<commit_md>\w+\+?)(?:, code (?P<code_md>\w+), "
    r"on (?P<machine_md>\w+))?\.",
    flags=re.DOTALL,
)


@dataclass(frozen=True)
class Origin:
    """Which commits made a result, and on which processors and GPUs."""

    commits: tuple[str, ...]
    machines: tuple[str, ...]
    codes: frozenset[str | None]


def origin(result: Result, root: Path = RESULTS) -> Origin:
    """Return what the files of a result say about their making."""
    sources = [source for path in result.paths(root) for source in _provenances(path)]
    return Origin(
        tuple(dict.fromkeys(s["commit"] for s in sources if s.get("commit"))),
        tuple(dict.fromkeys(filter(None, map(_machine, sources)))),
        frozenset(source.get("code") for source in sources),
    )


def _machine(source: Mapping[str, Any]) -> str | None:
    hardware = source.get("hardware", {})
    name: str | None = hardware.get("gpu") or hardware.get("cpu_capability")
    return name


@cache
def _provenances(path: Path) -> list[Mapping[str, Any]]:
    """Return every provenance in a file."""
    return list(_found(path))


def _found(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".json":
        yield from _nested(json.loads(path.read_text(encoding="utf-8")))
    elif path.name == "jobs.tar.xz":
        yield from (record["provenance"] for record in records(path))
    elif path.suffix in (".html", ".md"):
        for match in IN_TEXT.finditer(path.read_text(encoding="utf-8")):
            found = {name: match[name] or match[f"{name}_md"] for name in NAMES}
            machine = {"cpu_capability": found.pop("machine")}
            yield {**found, "hardware": machine}


def _nested(content: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(content, Mapping):
        if "commit" in content:
            yield content
        else:
            for part in content.values():
                yield from _nested(part)
    elif isinstance(content, list):
        for part in content:
            yield from _nested(part)


def digest(result: Result, root: Path = RESULTS) -> str:
    """Return a hash of the files of a result."""
    total = hashlib.sha256()
    for path in result.paths(root):
        content = path.read_bytes()
        if path.suffix in (".json", ".csv", ".md", ".html", ".svg"):
            content = content.replace(b"\r\n", b"\n")
        total.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:16]


class Ledger:
    """The last check of every result."""

    def __init__(self, path: Path = LEDGER) -> None:
        """Read the file, if there is one."""
        self.path = path
        self.entries: dict[str, dict[str, Any]] = read_results(path)

    def of(self, name: str, result: Result, root: Path) -> dict[str, Any] | None:
        """Return the check of the result's present files, if there is one."""
        check = self.entries.get(name)
        if check is None or check["result"] != digest(result, root):
            return None
        return check

    def write(self, name: str, entry: dict[str, Any]) -> None:
        """Replace one entry; other processes may write others meanwhile."""
        self.entries = {**read_results(self.path), name: entry}
        write_json(self.path, dict(sorted(self.entries.items())))


def state(
    name: str,
    result: Result,
    ledger: Ledger,
    sources: Sources,
    root: Path = RESULTS,
) -> str:
    """Return the state of a result: older than the code or not, and its check."""
    code = sources.code_hash(*result.modules)
    check = ledger.of(name, result, root)
    if check is not None and check["verdict"] == DIFFERS:
        return f"{DIFFERS}: {summary(check)}"
    if check is not None and check["code"] == code:
        return summary(check)
    if origin(result, root).codes == {code}:
        return MADE_BY_THIS_CODE
    return NO_CHECK if result.runs is None else NOT_CHECKED


def summary(check: Mapping[str, Any]) -> str:
    """Return what a check found, in words."""
    count = f"{len(check['runs'])} of {check['of']} runs again"
    if len(check["runs"]) <= SHOWN:
        count += f" ({', '.join(check['runs'])})"
    text = f"{count}: {check['verdict']}"
    noisy = check.get("noisy", {})
    if "interval" in noisy:
        low, high = noisy["interval"]
        text += f", mean difference {noisy['mean']:+.4f} ({low:+.4f} to {high:+.4f})"
    return text


def problems(
    ledger: Ledger,
    registry: Mapping[str, Result] = REGISTRY,
    root: Path = RESULTS,
) -> list[str]:
    """Return what is wrong with the committed results; [] if nothing is."""
    lines = []
    covered = {path for result in registry.values() for path in result.paths(root)}
    committed = (path for path in root.rglob("*") if "jobs" not in path.parts)
    files = {path for path in committed if path.is_file()} - {ledger.path}
    for path in sorted(files - covered):
        lines.append(f"{path.relative_to(root)} is no file of a result in REGISTRY")
    for name, result in registry.items():
        for pattern in result.files:
            if not Result((pattern,), (), None).paths(root):
                lines.append(f"{name} has no file {pattern}")
        if not origin(result, root).commits:
            lines.append(f"{name} does not say which commit made it")
        check = ledger.of(name, result, root)
        if check is not None and check["verdict"] == DIFFERS:
            lines.append(f"{name} {DIFFERS} from what the code gives now")
    unknown = sorted(set(ledger.entries) - set(registry))
    lines += [f"{name} is checked but no result" for name in unknown]
    return lines
