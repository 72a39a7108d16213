"""`ShardedTrainer`: a population spread over worker processes of one thread each.

On a CPU, models this small gain little from a second thread: its synchronization costs
as much as it brings. A process per core, each with its own members, uses all of them.
Workers (`worker.py`) are programs of their own, spoken to through standard input and
output, so scripts need no ``if __name__ == "__main__"`` for their sake.
"""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lr_gym.config import TrainingConfig
from lr_gym.data.corpora import Corpus
from lr_gym.devices import resolve_device
from lr_gym.models.language_model import LanguageModel
from lr_gym.trainers.base import FloatArray, check_chunk
from lr_gym.validation import check_integer

Call = tuple[str, tuple[Any, ...], dict[str, Any]]  # method, arguments, keywords


class ShardedTrainer:
    """`PopulationTrainer`'s members, shared out over processes; see `Trainer`.

    A member's numbers are those it has in one process (to rounding). The processes end
    with `close`, with this object, or with the program, whichever comes first.
    """

    def __init__(
        self, config: TrainingConfig, corpus: Corpus, size: int, workers: int
    ) -> None:
        """Start the workers and prepare their members.

        Args:
            config: As for `PopulationTrainer`; the device must be a CPU.
            corpus: The text; every worker gets a copy.
            size: E, at least `workers`.
            workers: Processes, at least 1; more than the CPU has cores is a waste.

        Raises:
            ValueError: A number is out of range, or what `PopulationTrainer` raises.
            RuntimeError: A worker ended.
        """
        check_integer("workers", workers, 1)
        if size < workers:
            raise ValueError(
                f"workers must not exceed the number of members, got workers={workers} "
                f"and {size} members"
            )
        if resolve_device(config.device).type != "cpu":
            raise ValueError(
                f"workers are for CPUs, got device={config.device!r}; on a GPU one "
                "process trains all members: leave workers at 1"
            )
        self.size = size
        self.config = config
        self.corpus_facts = corpus.facts()
        edges = [size * i // workers for i in range(workers + 1)]
        self._parts = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
        command = [sys.executable, "-m", "lr_gym.trainers.worker"]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(workers)
        ]
        self.close = weakref.finalize(self, _end, self._processes)
        self._ask(
            {w: ("start", (config, corpus, len(p)), {}) for w, p in self._shares()}
        )

    # ---------------------------------------------------------------- the protocol

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start fresh runs for `members`, one seed each; see `Trainer.reset`."""
        if len(members) != len(seeds):
            raise ValueError(f"got {len(members)} members but {len(seeds)} seeds")
        given = np.asarray(seeds)
        self._ask(
            {
                worker: ("reset", (local.tolist(), given[places].tolist()), {})
                for worker, local, places in self._route(members)
            }
        )

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train each member; see `Trainer.train`. Updates are reported at the end."""
        counts, rates = check_chunk(iterations, learning_rate, self.size)
        losses = self._ask(
            {w: ("train", (counts[p], rates[p]), {}) for w, p in self._shares()}
        )
        for _ in range(int(counts.max(initial=0)) if on_iteration else 0):
            on_iteration()  # type: ignore[misc]  # never None here
        return np.concatenate(list(losses.values()))

    def evaluate(
        self,
        split: str = "val",
        *,
        exact: bool = False,
        members: Sequence[int] | None = None,
    ) -> FloatArray:
        """Return the loss on `split`; see `PopulationTrainer.evaluate`."""
        chosen = range(self.size) if members is None else members
        loss = np.empty(len(chosen))
        routes = self._route(chosen)
        answers = self._ask(
            {
                worker: (
                    "evaluate",
                    (split,),
                    {"exact": exact, "members": local.tolist()},
                )
                for worker, local, _ in routes
            }
        )
        for worker, _, places in routes:
            loss[places] = answers[worker]
        return loss

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members are frozen, (E,) bool."""
        return np.concatenate(list(self._ask_all("diverged").values()))

    def snapshot(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Copy the rows of `members`; see `PopulationTrainer.snapshot`."""
        routes = self._route(members)
        answers = self._ask(
            {worker: ("snapshot", (local.tolist(),), {}) for worker, local, _ in routes}
        )
        order = np.argsort(np.concatenate([places for _, _, places in routes]))
        names = answers[routes[0][0]]
        return {
            name: torch.cat([answers[worker][name] for worker, _, _ in routes])[order]
            for name in names
        }

    def restore(
        self,
        members: Sequence[int],
        state: Mapping[str, Tensor],
        *,
        rewind: bool = True,
    ) -> None:
        """Put a snapshot back; see `Trainer.restore`."""
        self._ask(
            {
                worker: (
                    "restore",
                    (local.tolist(), {k: v[places] for k, v in state.items()}),
                    {"rewind": rewind},
                )
                for worker, local, places in self._route(members)
            }
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of all members' state, for `safetensors.torch.save_file`."""
        return self.snapshot(range(self.size))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`; raises ValueError where it does not fit."""
        self.restore(range(self.size), state)

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return what a training script would log; see `PopulationTrainer`."""
        answers = list(self._ask_all("telemetry", names).values())
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}

    def model(self, member: int = 0) -> LanguageModel:
        """Return a copy of one member as an ordinary module, ready to generate."""
        ((worker, local, _),) = self._route([member])
        answers = self._ask({worker: ("model", (int(local[0]),), {})})
        model: LanguageModel = answers[worker]
        return model

    # ------------------------------------------------------------------ the workers

    def _shares(self) -> list[tuple[int, NDArray[np.int64]]]:
        return list(enumerate(self._parts))

    def _route(
        self, members: Sequence[int]
    ) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Return, per worker concerned, its own members and their places here."""
        wanted = np.asarray(members, dtype=np.int64)
        routes = []
        for worker, part in self._shares():
            places = np.flatnonzero((wanted >= part[0]) & (wanted <= part[-1]))
            if len(places):
                routes.append((worker, wanted[places] - part[0], places))
        return routes

    def _ask_all(self, method: str, *arguments: object) -> dict[int, Any]:
        return self._ask({w: (method, arguments, {}) for w, _ in self._shares()})

    def _ask(self, calls: Mapping[int, Call]) -> dict[int, Any]:
        """Let the workers run their calls side by side; return their answers.

        An exception in a worker is raised here, after all have answered. If the talk is
        cut short, by a worker's end or an interrupt, all workers are ended.
        """
        if not self.close.alive:
            raise RuntimeError("the trainer is closed: its workers have ended")
        finished = False
        try:
            for worker, call in calls.items():
                self._send(worker, call)
            answers = {worker: self._receive(worker) for worker in calls}
            finished = True
        finally:
            if not finished:
                self.close()
        for answer in answers.values():
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _send(self, worker: int, call: Call) -> None:
        stream = self._processes[worker].stdin
        try:
            pickle.dump(call, stream, pickle.HIGHEST_PROTOCOL)  # type: ignore[arg-type]
            stream.flush()  # type: ignore[union-attr]
        except OSError as error:
            raise self._lost(worker) from error

    def _receive(self, worker: int) -> object:
        stream = self._processes[worker].stdout
        try:
            return pickle.load(stream)  # type: ignore[arg-type]  # noqa: S301 - our child
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._lost(worker) from error

    def _lost(self, worker: int) -> RuntimeError:
        status = self._processes[worker].wait()
        return RuntimeError(
            f"worker {worker + 1} of {len(self._processes)} ended with status "
            f"{status}; its runs are lost, and the other workers were ended too"
        )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the workers: they stop when their input does, or are killed."""
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            try:
                stream.close()  # type: ignore[union-attr]
            except BrokenPipeError:  # an unsent rest for a worker that has ended
                continue
