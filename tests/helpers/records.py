"""Synthetic job records, and their report as a parsed page."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison.jobs import FORMAT
from benchmarks.comparison.protocol import Protocol
from benchmarks.comparison.report import write_report
from benchmarks.comparison.summary import Row, summarize

PROTOCOL = Protocol(
    peaks=(0.5, 1.0, 2.0), tune_seeds=(1_000,), test_seeds=(0, 1, 2), learners=1
)
STEPS = 6
HOSTILE = "<script>alert('$x$ & y')</script>"
METHODS = (
    "linear", "constant", "cosine", "wsd", "plateau", "random", "schedule_free",
    "random_search", "q_paper", "q_improved", "ppo", "as_published",
)  # fmt: skip
LEARNERS = ("random_search", "q_paper", "q_improved", "ppo")


def small_run(
    seed: int, loss: float, rate: float, steps: int = STEPS, diverged: bool = False
) -> dict[str, Any]:
    """Return a run with a loss that falls to `loss` and a rate that falls to zero."""
    rates = (rate * np.linspace(1.0, 0.0, steps)).tolist()
    losses = np.linspace(loss + 1.0, loss, steps + 1).tolist()
    return {
        "seed": seed,
        "learning_rate": rate,
        "metrics": {
            "final_train_loss": loss - 0.01,
            "best_val_loss": loss,
            "final_val_loss": loss,
            "test_loss": loss + 0.01,
            "diverged": diverged,
            "train_seconds": 1.5,
        },
        "curves": {
            "iteration": [10 * step for step in range(steps + 1)],
            "val_loss": losses,
            "train_loss": losses[1:],
            "learning_rate": rates,
            "optimizer_lr": rates,
            "action": [1] * steps,
            "reward": [0.1] * steps,
        },
    }


def small_record(
    method: str,
    phase: str,
    runs: Sequence[dict[str, Any]],
    env: str = "markov",
    history: Sequence[float] = (),
) -> dict[str, Any]:
    """Return the record of a job, without running it."""
    job = {
        "method": method,
        "env": env,
        "phase": phase,
        "seeds": [run["seed"] for run in runs],
        "learning_rates": [run["learning_rate"] for run in runs],
        "settings": {"scale": "tiny"},
        "replicate": 0,
        "budget": len(history),
        "script": [],
        "samples": 0,
    }
    shape = {"n_layer": 2, "n_embd": 64, "n_head": 2, "block_size": 32}
    length = {"batch_size": 16, "max_iters": 10 * STEPS, "eval_interval": 10}
    sizes = {"train_characters": 9_000, "val_characters": 500, "test_characters": 500}
    return {
        "format": FORMAT,
        "job": job,
        "runs": list(runs),
        "seconds": 1.5 * (len(runs) + len(history)),
        "history": list(history),
        "trainings": len(runs) + len(history),
        "spent_learning": len(history),
        "training": {**shape, **length, "learning_rate": 3e-3},
        "settings": {},
        "device": "cpu",
        "precision": "float32",
        "corpus": {"sha256": "5a" * 32, "corpus_complete": env != "text8", **sizes},
        "provenance": {
            "command": "compare_agents.py",
            "commit": "abc1234",
            "python": "3.11.7",
            "versions": {"lr-gym": "0.1.0", "torch": "2.13.0", "sb3": None},
            "hardware": {
                "machine": "x86_64",
                "cpu_capability": "AVX2",
                "cores": 2,
                "gpu": None,
            },
        },
    }


def small_comparison(
    methods: Sequence[str] = METHODS,
    envs: Sequence[str] = ("markov",),
    seeds: Sequence[int] = tuple(range(5)),
) -> list[dict[str, Any]]:
    """Return the records of a comparison; each method is 0.02 worse than the last."""
    records = []
    random = np.random.default_rng(0)
    for env in envs:
        for number, method in enumerate(methods):
            loss = 2.0 + 0.02 * number
            noise = random.normal(0.0, 0.01, len(seeds))
            tests = [
                small_run(seed, loss + extra, 0.01)
                for seed, extra in zip(seeds, noise, strict=True)
            ]
            if method in LEARNERS:
                history = (loss + random.exponential(0.2, 12)).tolist()
                records.append(small_record(method, "learn", tests, env, history))
            else:
                peaks = [
                    small_run(1_000, loss + k * 0.1, 0.01 * 2**k) for k in range(3)
                ]
                records.append(small_record(method, "tune", peaks, env))
                records.append(small_record(method, "test", tests, env))
            if method == "q_paper":
                records.append(small_record(method, "open_loop", tests, env))
    return records


class Page(HTMLParser):
    """The links, tags, ids, sort states and words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.sorts: list[str] = []
        self.words = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "aria-sort":
                self.sorts.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data


def small_report(
    folder: Path, records: Sequence[dict[str, Any]], rows: Sequence[Row] | None = None
) -> Page:
    """Write the report of `records` and return it, parsed."""
    rows = summarize(records) if rows is None else rows
    path = folder / "report.html"
    command = "python benchmarks/compare_agents.py --env markov"
    assert write_report(path, records, rows, PROTOCOL, command) == path
    return Page(path)
