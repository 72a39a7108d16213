"""Speed of large populations, text generation, snapshots and training like enwik8.

Training like enwik8 has its batch and its vocabulary but random characters. Only speed
is measured, so the text is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.speed import costs
from benchmarks.speed.gpu.session import Session, SubRun
from benchmarks.speed.gpu.speed import population, time_in_turns
from benchmarks.speed.timing import timed
from lr_gym import Corpus, PopulationTrainer
from lr_gym.trainers.compilation import forget_compiled

SECONDS = {
    "generation": 20.0,
    "snapshots": 15.0,
    "enwik8": 40.0,
    "graph": 60.0,  # it compiles
    "default": 25.0,  # the same compiled step, without the graph
    "off": 30.0,
}
SIZES = (2, 4, 8, 16, 32, 64)
GENERATED_CHARACTERS = 500  # as in the paper's measurement
VOCAB_SIZE = 205  # of enwik8


def plan(session: Session) -> list[SubRun]:
    """Return the short measurements, then the populations by size."""
    runs = {
        "generation": ("generation", partial(generation, session)),
        "snapshots": ("snapshots", partial(snapshots, session)),
        "enwik8": ("enwik8", partial(enwik8_shape, session)),
    }
    modes = session.compiled_modes
    for size in session.pick(SIZES, (2, 3)):
        for mode in modes:
            call = partial(speed_of, session, size, mode, fresh=mode == modes[0])
            runs[f"E={size}, {mode}"] = mode, call
    return [
        SubRun(name, session.pick(SECONDS[kind], 0.0), run)
        for name, (kind, run) in runs.items()
    ]


def headline(runs: Mapping[str, Any]) -> str:
    """Return the fastest population."""
    speeds = {
        name: run["tokens_per_second_per_member"] * run["size"]
        for name, run in runs.items()
        if "tokens_per_second_per_member" in run
    }
    if not speeds:
        return ""
    best = max(speeds, key=lambda name: speeds[name])
    return f"{best}: {speeds[best]:,.0f} characters/s in all"


def speed_of(session: Session, size: int, mode: str, *, fresh: bool) -> dict[str, Any]:
    """Time a population of one size; `fresh` forgets earlier compilations."""
    if fresh:
        forget_compiled()
        session.free_memory()
    name = f"ours, {mode}"
    result = time_in_turns(session, {name: population(session, size, mode)})
    for row in result["variants"].values():
        speed = row["tokens_per_second"]["median"]
        result |= {"size": size, "tokens_per_second_per_member": speed / size}
    return result


def generation(session: Session) -> dict[str, Any]:
    """Time text generation by a member of a population."""
    config = session.configure("paper", compile="off")
    model = PopulationTrainer(config, session.corpus, 1).model(0)
    count = session.pick(GENERATED_CHARACTERS, 8)
    speeds = {}
    for batch in session.pick((1, 64), (1, 2)):
        prompt = torch.zeros((batch, 1), dtype=torch.int64, device=session.device)
        model.generate(prompt, min(count, 8))  # warm-up
        seconds, _ = timed(partial(model.generate, prompt, count), session.device)
        speeds[str(batch)] = batch * count / seconds
    return {"characters": count, "characters_per_second_by_batch": speeds}


def snapshots(session: Session) -> dict[str, Any]:
    """Time taking and restoring snapshots of a population."""
    config = session.configure("paper", compile="off")
    sizes = session.pick((1, 64), (1, 2))
    return {
        "by_size": [
            costs.snapshot_cost(config, session.corpus, size, 5) for size in sizes
        ]
    }


def enwik8_shape(session: Session) -> dict[str, Any]:
    """Time training with the batch and vocabulary of enwik8, on random characters."""
    config = session.configure("paper", "enwik8", compile=session.long_compile)
    corpus = random_corpus(session.pick(2_000_000, 20_000))
    trainer = PopulationTrainer(config, corpus, 1)
    trainer.reset([0], [0])
    rate = [config.learning_rate]
    first, _ = timed(partial(trainer.train, 2, rate), session.device)
    iterations = session.pick(1_000, 4)
    seconds, _ = timed(partial(trainer.train, iterations, rate), session.device)
    characters = iterations * config.batch_size * config.block_size
    return {
        "training": asdict(config),
        "vocab_size": corpus.vocab_size,
        "compile": trainer.compile,
        "first_two_iterations_seconds": first,
        "iterations": iterations,
        "training_seconds": seconds,
        "tokens_per_second": characters / seconds,
    }


def random_corpus(characters: int) -> Corpus:
    """Return random characters with the vocabulary size of enwik8."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(VOCAB_SIZE, size=characters, dtype=np.uint8)
    cut = characters * 9 // 10
    return Corpus(
        name="random",
        vocabulary=tuple(map(chr, range(VOCAB_SIZE))),
        train=tokens[:cut],
        val=tokens[cut:],
        test=tokens[:0],
        complete=True,
        sha256="",
        entropy_rate=float(np.log(VOCAB_SIZE)),
    )
