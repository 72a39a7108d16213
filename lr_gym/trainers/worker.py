"""A worker of `ShardedTrainer`: trains its members on one thread, answering calls.

Run as ``python -m lr_gym.trainers.worker``; speaks pickle with the process that started
it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import Any, BinaryIO

import torch

from lr_gym.trainers.population import PopulationTrainer


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """Answer calls (method, arguments, keywords) until the input ends."""
    trainer: PopulationTrainer | None = None
    while True:
        try:
            method, arguments, keywords = pickle.load(calls)  # noqa: S301 - our parent
        except EOFError:
            return
        answer: Any = None
        try:
            if method == "start":
                trainer = PopulationTrainer(*arguments)
            else:
                answer = getattr(trainer, method)(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - raised again in the parent
            answer = error
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def main() -> None:
    """Serve on standard input and output; what else is printed goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
