"""What a controller proposes on a law of the loss curve, trained for real.

    python -m benchmarks.surrogate.proposals --env markov --scale tiny

A simulator is exploited where it is wrong: a controller goes where the law promises
most. The default rule runs on the law that `surrogate/fitting.py` left in `--out`, from
seven wrong rates; the learning-rate curves it ends up with are trained for real, with
two seeds each. The law is fitted again with the first seeds' runs among its own, and
asked about the second seeds'. Writes ``{env}-{scale}-proposals.npz`` and ``.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.agent import make_env, run_episode
from agents.baselines import UpdateSizeAgent
from benchmarks.results_file import write_result
from benchmarks.surrogate.fitting import Args as Collecting
from benchmarks.surrogate.fitting import collect, our_losses, scores
from benchmarks.surrogate.runs import Plan, scheduled
from lr_gym import TrainingConfig, fit_surrogate, load_corpus, load_law, preset
from lr_gym.mdp.instances import HELD_OUT_LR_FACTORS
from lr_gym.surrogate.runs import RecordedRun, load_runs

FIRST_SEEDS = (2_000_000, 3_000_000)  # refitted on, and asked about
TARGET = 0.03  # nats


@dataclass
class Args:
    """Train what the default rule does on a law, and compare."""

    env: str = "markov"
    """markov, shakespeare, enwik8, text8, or a text file's path."""
    scale: str = "tiny"
    """tiny, mini or paper."""
    size: int = 7
    """Runs that train side by side."""
    out: Path = Path("benchmarks/results/surrogate")
    """Folder of the law and its runs, and of the result."""


def propose(args: Args, config: TrainingConfig, law: Path) -> list[tuple[str, Any]]:
    """Return the default rule's rates on the law, (max_iters,) per initial rate."""
    found = []
    for factor in HELD_OUT_LR_FACTORS:
        agent = UpdateSizeAgent(undo=False)  # an undone chunk is no plan
        settings = {**agent.settings, "trainer": str(law), "scale": args.scale}
        given = {"seed": 0, "learning_rate": factor * config.learning_rate}
        rows = run_episode(make_env(args.env, **settings), agent, options=given)
        counts = np.diff([row["iteration"] for row in rows])
        rates = np.repeat([row["learning_rate"] for row in rows[1:]], counts)
        wsd = scheduled(config, agent.settings["base_schedule"], 1.0)
        found.append((f"from {factor:.3g} of the rate", rates * wsd))
    return found


def errors(predicted: Any, runs: list[RecordedRun]) -> dict[str, Any]:  # noqa: ANN401
    """Return the error of every final loss, and whether all are small."""
    found = scores(predicted, runs)
    return found | {"all_within_target": found["worst_final_error"] <= TARGET}


def main(args: Args) -> dict[str, Any]:
    """Propose, train, fit again; write and print the report."""
    config = preset(args.scale, args.env)
    name = f"{Path(args.env).stem}-{args.scale}"
    law = load_law(args.out / f"{name}.json")
    proposals = propose(args, config, args.out / f"{name}.json")
    rounds = [
        [Plan(label, first + n, rates) for n, (label, rates) in enumerate(proposals)]
        for first in FIRST_SEEDS
    ]
    path = args.out / f"{name}-proposals.npz"
    how = Collecting(env=args.env, scale=args.scale, size=args.size, out=args.out)
    collect(config, [plan for plans in rounds for plan in plans], path, how, None)
    done = {run.seed: run for run in load_runs(path)}
    seen, asked = ([done[plan.seed] for plan in plans] for plans in rounds)
    for plan in (*rounds[0], *rounds[1]):
        if not np.allclose(done[plan.seed].rates, plan.rates, rtol=1e-5, atol=0.0):
            raise SystemExit(f"error: {path} is of another law; remove it")
    corpus = load_corpus(args.env)
    fitting = load_runs(args.out / f"{name}-fit.npz")
    again = fit_surrogate([*fitting, *seen], config, entropy_rate=corpus.entropy_rate)
    report = {
        "target": TARGET,
        "before_refitting": errors(our_losses(law, asked), asked),
        "after_refitting": errors(our_losses(again, asked), asked),
        "real_spread_of_two_seeds": [
            float(abs(a.val_loss[-1] - b.val_loss[-1]))
            for a, b in zip(seen, asked, strict=True)
        ],
    }
    print(json.dumps(report, indent=1))
    return write_result(args.out / f"{name}-proposals.json", report)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
