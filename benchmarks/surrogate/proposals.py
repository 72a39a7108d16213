"""Error of a law on the learning-rate curves that a controller chooses on it.

    python -m benchmarks.surrogate.proposals --env markov --scale tiny

Controllers exploit model error, so the law is tested where they end up. The default
rule runs on the law of `surrogate/fitting.py` in `--out`, from seven wrong learning
rates. Its learning-rate curves are then used in real training, with two seeds each. The
law predicts the second seeds' runs, before and after it is refitted with the first
seeds' runs. The script writes ``{env}-{scale}-proposals.npz`` and ``.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.agent import make_env, run_episode
from agents.baselines import UpdateSizeAgent
from agents.command_line import parse_command_line
from benchmarks.results_file import write_result
from benchmarks.surrogate.fitting import Args as CollectionArgs
from benchmarks.surrogate.fitting import collect, our_losses, scores
from benchmarks.surrogate.runs import Plan, scheduled
from lr_gym import TrainingConfig, fit_surrogate, load_corpus, load_law, preset
from lr_gym.mdp.instances import HELD_OUT_LR_FACTORS
from lr_gym.surrogate.runs import RecordedRun, load_runs

FIRST_SEEDS = (2_000_000, 3_000_000)  # of refitting, of testing
TARGET_ERROR = 0.03  # nats


@dataclass
class Args:
    """Train the curves that the default rule chooses on a law, and compare."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or the path of a text file."""
    scale: str = "tiny"
    """tiny, mini or paper."""
    size: int = 7
    """Runs that train as one population."""
    out: Path = Path("benchmarks/results/surrogate")
    """Folder of the law, its runs and the result."""


def propose(args: Args, config: TrainingConfig, law: Path) -> list[tuple[str, Any]]:
    """Return the rule's learning rates on the law, (max_iters,) per initial LR."""
    curves = []
    for factor in HELD_OUT_LR_FACTORS:
        agent = UpdateSizeAgent(undo=False)  # real training cannot replay an undo
        settings = {**agent.settings, "trainer": str(law), "scale": args.scale}
        options = {"seed": 0, "learning_rate": factor * config.learning_rate}
        rows = run_episode(make_env(args.env, **settings), agent, options=options)
        counts = np.diff([row["iteration"] for row in rows])
        rates = np.repeat([row["learning_rate"] for row in rows[1:]], counts)
        wsd = scheduled(config, agent.settings["base_schedule"], 1.0)
        curves.append((f"from {factor:.3g} of the rate", rates * wsd))
    return curves


def errors(predicted: Any, runs: list[RecordedRun]) -> dict[str, Any]:  # noqa: ANN401
    """Return the errors of the final losses, and whether all are within the target."""
    result = scores(predicted, runs)
    return result | {"all_within_target": result["worst_final_error"] <= TARGET_ERROR}


def main(args: Args) -> dict[str, Any]:
    """Choose curves, train, refit; write and print the report."""
    config = preset(args.scale, args.env)
    name = f"{Path(args.env).stem}-{args.scale}"
    law = load_law(args.out / f"{name}.json")
    proposals = propose(args, config, args.out / f"{name}.json")
    rounds = [
        [Plan(label, first + n, rates) for n, (label, rates) in enumerate(proposals)]
        for first in FIRST_SEEDS
    ]
    path = args.out / f"{name}-proposals.npz"
    options = CollectionArgs(
        env=args.env, scale=args.scale, size=args.size, out=args.out
    )
    collect(config, [plan for plans in rounds for plan in plans], path, options, None)
    done = {run.seed: run for run in load_runs(path)}
    refitting, testing = ([done[plan.seed] for plan in plans] for plans in rounds)
    for plan in (*rounds[0], *rounds[1]):
        if not np.allclose(done[plan.seed].rates, plan.rates, rtol=1e-5, atol=0.0):
            raise SystemExit(f"error: {path} has runs of another law; remove it")
    corpus = load_corpus(args.env)
    fitting = load_runs(args.out / f"{name}-fit.npz")
    refitted = fit_surrogate(
        [*fitting, *refitting], config, entropy_rate=corpus.entropy_rate
    )
    report = {
        "target": TARGET_ERROR,
        "before_refitting": errors(our_losses(law, testing), testing),
        "after_refitting": errors(our_losses(refitted, testing), testing),
        "real_spread_of_two_seeds": [
            float(abs(a.val_loss[-1] - b.val_loss[-1]))
            for a, b in zip(refitting, testing, strict=True)
        ],
    }
    print(json.dumps(report, indent=1))
    return write_result(args.out / f"{name}-proposals.json", report)


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
