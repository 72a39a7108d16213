"""Is every committed result still what the code gives?

    python -m benchmarks.results_check            # seconds, without training
    python -m benchmarks.results_check --rerun    # samples of what is outdated
    python -m benchmarks.results_check --rerun controller/widths surrogate/damage

Prints for every result of `checks/registry.py` which commit made it, on which machine,
and its state. Exits with 1 if a file belongs to no result, a result has no file or no
commit, or a sample came out different.

``--rerun`` runs a tenth of a result's runs again, fewer if they take long, compares
them with the file, and writes the outcome to ``benchmarks/results/checks.json``. The
state counts until the code or the result changes. The results on text8 are of a part of
it: set ``LR_GYM_ALLOW_PARTIAL=1``, and have the same part.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import torch

from agents.command_line import parse_command_line
from benchmarks.checks.registry import REGISTRY, Result
from benchmarks.checks.runs import run_again, sample
from benchmarks.checks.states import (
    NOT_CHECKED,
    Ledger,
    digest,
    origin,
    problems,
    state,
)
from benchmarks.dependencies import Sources, code_hash
from benchmarks.provenance import provenance


@dataclass
class Args:
    """Print the state of all results; with --rerun, check samples first."""

    rerun: tuple[str, ...] | None = None
    """Results to check; without names, all that are older than the code."""
    share: float = 0.1
    """Of a result's runs, to be run again; at least one."""
    minutes: float = 4.0
    """Of the processor, for a result; runs that take longer in all are left out."""


def check(name: str, result: Result, args: Args, ledger: Ledger) -> None:
    """Run a sample of a result again; print the outcome and write it to the ledger."""
    if result.runs is None:
        return
    code = code_hash(*result.modules)
    content = digest(result)
    try:
        runs = result.runs(result.place())
        chosen = sample(runs, args.share, 60.0 * args.minutes)
        entry = run_again(chosen, 60.0 * args.minutes)
    except (FileNotFoundError, ValueError, ImportError) as error:  # a text, a package
        print(f"{name}: not checked. {error}", flush=True)
        return
    made = provenance()
    entry |= {
        "of": len(runs),
        "code": code,
        "result": content,
        "commit": made["commit"],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": made["hardware"],
    }
    ledger.write(name, entry)
    print(f"{name}: {entry['verdict']} ({entry['seconds']:.0f} s)", flush=True)


def main(args: Args) -> None:
    """Check, print all states, and exit with 1 if something is wrong."""
    ledger, sources = Ledger(), Sources()
    if args.rerun is not None:
        torch.set_num_threads(1)
        unknown = [name for name in args.rerun if name not in REGISTRY]
        if unknown:
            sys.exit(
                f"error: no result is called {unknown[0]!r}; known are "
                f"{', '.join(REGISTRY)}"
            )
        names = args.rerun or [
            name
            for name, result in REGISTRY.items()
            if state(name, result, ledger, sources) == NOT_CHECKED
        ]
        for name in names:
            check(name, REGISTRY[name], args, ledger)
    for name, result in REGISTRY.items():
        made = origin(result)
        commits, machines = ", ".join(made.commits), ", ".join(made.machines)
        print(f"{name}: commit {commits}; {machines or 'machine not recorded'}")
        print(f"    {state(name, result, ledger, sources)}")
    wrong = problems(ledger)
    print("\n".join(wrong) or "every result has its files and its commit; none differs")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
