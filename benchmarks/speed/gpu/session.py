"""Settings, clock and result files of the parts of `gpu_queue.py`."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.paths import RESULTS
from benchmarks.provenance import provenance
from benchmarks.results_file import write_json
from benchmarks.speed.timing import CannotRun
from lr_gym import Corpus, TrainingConfig, preset
from lr_gym.files import read_json_object

FORMAT = "lr-gym gpu 1"
COMMITTED = RESULTS / "gpu"
DRY_RUN_SETTINGS: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 16,
    "batch_size": 4,
    "max_iters": 8,
    "eval_interval": 2,
    "warmup_iters": 0,
    "eval_tokens": 256,
    "device": "cpu",
    "precision": "float32",
    "compile": "off",
}


@dataclass(frozen=True)
class SubRun:
    """A measurement of a part; it runs to its end or not at all.

    Attributes:
        name: Unique within the part.
        seconds: Expected seconds on an H100.
        run: Returns the result. It has failed if ``passed`` is False, or if it has
            ``errors``.
    """

    name: str
    seconds: float
    run: Callable[[], dict[str, Any]]


@dataclass
class Session:
    """One call of the queue.

    Attributes:
        device: Where all models train.
        corpus: The text.
        settings: Fields of every `TrainingConfig`.
        deadline: Time of the monotonic clock at which the budget ends.
        dry_run: Whether models and runs are small.
        folder: For temporary files.
        long_compile: Compile mode of long runs.
    """

    device: torch.device
    corpus: Corpus
    settings: dict[str, Any]
    deadline: float
    dry_run: bool
    folder: Path
    long_compile: str = "off"

    @property
    def modes(self) -> tuple[str, ...]:
        """The compile modes to try; on a CPU compilation is slow."""
        on_gpu = self.device.type == "cuda"
        return ("off", "default", "graph") if on_gpu else ("off",)

    @property
    def compiled_modes(self) -> tuple[str, ...]:
        """The modes that compile, the fastest first; on a CPU ``off``."""
        return tuple(mode for mode in reversed(self.modes) if mode != "off") or ("off",)

    def seconds_left(self) -> float:
        """Return the seconds until the deadline, below 0 after it."""
        return self.deadline - time.monotonic()

    def pick(self, real: Any, small: Any) -> Any:  # noqa: ANN401 - any setting
        """Return `small` in a dry run, else `real`."""
        return small if self.dry_run else real

    def configure(
        self, scale: str = "paper", corpus: str | None = None, **overrides: Any
    ) -> TrainingConfig:
        """Return a preset with this session's settings, then with `overrides`."""
        settings = self.settings | overrides
        return preset(scale, corpus or self.corpus.name, **settings)

    def free_memory(self) -> None:
        """Return unused memory to the device.

        Raises:
            CannotRun: The device has failed; this process cannot use it any more.
        """
        if self.device.type != "cuda":
            return
        gc.collect()
        try:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise CannotRun(f"the GPU has failed, start again: {error}") from error


class PartFile:
    """The JSON file of one part, written after every sub-run."""

    def __init__(self, path: Path, committed: Path | None, dry_run: bool) -> None:
        """Read the file, or else the committed file.

        Raises:
            CannotRun: The file is damaged, or only one of file and session is a dry
                run.
        """
        self.path = path
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "part": path.stem,
            "complete": False,
            "dry_run": dry_run,
            "sessions": [],
            "runs": {},
            "errors": {},
        }
        places = [path] if committed is None else [path, committed / path.name]
        contents = [read_part(place) for place in places if place.is_file()]
        # A complete committed file has precedence over an incomplete one.
        contents.sort(key=lambda content: not content["complete"])
        if contents:
            self.content = contents[0]
        if self.content["dry_run"] != dry_run:
            kind = "a real run" if dry_run else "a dry run"
            raise CannotRun(f"{path} is of {kind}: choose another --out")
        self._session: int | None = None  # index of this call among the sessions

    @property
    def complete(self) -> bool:
        """Whether the file has every sub-run."""
        return bool(self.content["complete"])

    @property
    def failures(self) -> list[str]:
        """The names of sub-runs that failed."""
        runs: Mapping[str, Any] = self.content["runs"]
        return [*self.content["errors"], *(n for n, r in runs.items() if failed(r))]

    def finished(self, name: str) -> bool:
        """Whether the file has a sub-run that did not fail."""
        run = self.content["runs"].get(name)
        return run is not None and not failed(run)

    def pace(self) -> float:
        """Return measured over expected seconds of finished sub-runs; 1 without any.

        Sub-runs with a ``note`` were skipped and do not count. The result is at least
        0.5, since a few short sub-runs say little about long ones.
        """
        runs = [
            run
            for run in self.content["runs"].values()
            if not failed(run) and "note" not in run
        ]
        expected = sum(run["expected_seconds"] for run in runs)
        measured = sum(run["seconds"] for run in runs)
        return max(0.5, measured / expected) if expected else 1.0

    def record(
        self, sub: SubRun, seconds: float, result: dict[str, Any] | str, names: set[str]
    ) -> None:
        """Store a result, or the traceback of an error; write the file.

        Args:
            sub: The sub-run.
            seconds: Its duration.
            result: Its return value, or a traceback.
            names: The names of all sub-runs of the part.
        """
        content = self.content
        if self._session is None:
            self._session = len(content["sessions"])
            content["sessions"].append(provenance())
        content["errors"].pop(sub.name, None)
        content["runs"].pop(sub.name, None)
        if isinstance(result, str):
            content["errors"][sub.name] = result
        else:
            content["runs"][sub.name] = {
                "session": self._session,
                "expected_seconds": sub.seconds,
                "seconds": seconds,
                **plain(result),
            }
        content["complete"] = all(map(self.finished, names))
        write_json(self.path, content)


def failed(run: Mapping[str, Any]) -> bool:
    """Whether a recorded sub-run failed, at least in part."""
    return run.get("passed") is False or bool(run.get("errors"))


def read_part(path: Path) -> dict[str, Any]:
    """Return the content of a part's file.

    Raises:
        CannotRun: The file is damaged or has another format.
    """
    try:
        content = read_json_object(path)
        if content.get("format") == FORMAT:
            return content
    except ValueError:
        pass
    raise CannotRun(f"{path} is not a complete {FORMAT!r} file: delete it")


def plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value for JSON: NumPy types as Python's, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def rounded(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float | None]:
    """Return numbers to five digits, non-finite numbers as None."""
    numbers = (float(value) for value in values)
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in numbers]
