"""Learn a controller on simulated runs; fine-tune and test it on real ones.

    python agents/train_controller.py                     # minutes on two cores
    python agents/train_controller.py --real 12           # tests on 12 real runs
    python agents/train_controller.py --rounds 2          # learns from 36 real runs

Every simulated episode is a different run: its corpus is one of those with a fitted
law, its horizon one of three, and its initial learning rate is wrong by up to a factor
of 30. The controller decides often at the start. One of its actions lowers the rate by
a factor of 300, another undoes a chunk of training. It observes only quantities that
mean the same in any training: no absolute rate, no absolute loss.

In each of ``--rounds`` the controller runs some real trainings of every corpus. The
laws are then fitted again with these runs, and it continues to learn on the new laws.

An interrupted training starts from the beginning: nothing of it is kept.

The results are a policy file, for `PolicyLR` and `compare_agents.py`, and a report
with final losses on new runs: of the controller, of two rules, and of keeping the rate;
simulated and, with ``--real``, in real training of the same instances.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agents.agent import Agent, LREnv, episodes_of, make_envs, run_population
from agents.baselines import RampAndUndoAgent, UpdateSizeAgent
from agents.command_line import one_line_errors, parse_command_line
from agents.deep_rl import DeepAgent
from agents.rollouts import final_errors, record_runs, refit_law
from agents.saved_policy import saved_agent
from lr_gym import export_policy
from lr_gym.files import only_process, write_text
from lr_gym.mdp.instances import LR_MULTIPLIER_RANGE
from lr_gym.surrogate.law_files import packaged_law, packaged_laws
from lr_gym.surrogate.runs import RecordedRun
from lr_gym.trainers.base import FloatArray
from lr_gym.validation import check_count, check_integer

HORIZONS = (300, 600, 900)
GOOD_LR = 8e-3  # at `tiny`; `lr_factor` of the family is relative to it
CHECK_SEED = 10_000_000  # far from the runs that are learned on
ROLLOUT_SEED = 20_000_000  # likewise, and from those
DECISIONS: dict[str, Any] = {
    "allow_undo": True,
    "decision_spacing": "dense_start",
    "lr_factors": (1 / 300, 0.5, 1.0, 2.0),
    "features": ("progress", "loss_slope", "update_size", "generalization_gap"),
    "reward": "log_loss_reduction",
    "base_schedule": "wsd",  # decays at the end, as under the rules
    "min_lr": 1e-8,
    "max_lr": 10.0,
}


@dataclass
class Args:
    """Train on the simulator, compare with the rules, save."""

    scale: str = "tiny"
    """A scale with laws."""
    episodes: int = 30_000
    """Simulated runs to learn from."""
    num_envs: int = 128
    """Simulated runs in one population."""
    seed: int = 0
    """Seeds the learner and its runs."""
    checks: int = 500
    """New simulated runs to test on."""
    real: int = 0
    """Real runs to test on; they are of the same family, not held out."""
    rounds: int = 0
    """Rounds of real runs, refitted laws, and further learning."""
    rollouts: int = 6
    """Real runs per corpus and round."""
    round_episodes: int = 10_000
    """Simulated runs to learn from after each round."""
    fitted_on: Path = Path("benchmarks/results/surrogate")
    """Folder of the recorded runs that the laws were fitted on."""
    out: Path = Path("results/controller")
    """Folder of policy.safetensors and report.json."""


def family(scale: str) -> dict[str, Any]:
    """Return the family of runs, with all corpora that have a law at `scale`."""
    corpora = [corpus for corpus, size in packaged_laws() if size == scale]
    if not corpora:
        raise ValueError(f"there is no law for any corpus at scale {scale!r}")
    return {"corpora": corpora, "max_iters": HORIZONS, "good_lr": GOOD_LR}


def run_settings(args: Args) -> dict[str, Any]:
    """Return the keywords of `gym.make` that all agents share."""
    runs = family(args.scale)
    corpus = runs["corpora"][0]
    return {"scale": args.scale, "corpus": corpus, "family": runs}


def simulated(
    args: Args, laws: Mapping[str, str] | None = None, **changes: Any
) -> LREnv:
    """Return the environment to learn in.

    Args:
        args: Its `scale` is used.
        laws: Corpus to the file of its law; `None` is the packaged laws.
        **changes: Override `DECISIONS`.
    """
    trainer = "surrogate" if laws is None else dict(laws)
    settings = {**run_settings(args), "trainer": trainer, **DECISIONS, **changes}
    with warnings.catch_warnings():  # `--rounds` adds real runs of all horizons
        warnings.filterwarnings("ignore", message="max_iters=.* the law was fitted")
        return gym.make("LRTuningEnv-v0", **settings)


def learner(args: Args, env: LREnv, algo: str = "ppo") -> DeepAgent:
    """Return an untrained agent for `env`."""
    return DeepAgent(
        args.seed,
        algo=algo,
        num_envs=args.num_envs,
        # Four minibatches: a member's rollout is one episode.
        batch_size=max(1, args.num_envs // 4) * episodes_of(env).decisions,
        n_epochs=10,
        learning_rate=1e-3,
    )


def final_losses(
    make: Callable[[int], Agent], trainer: str, count: int, args: Args
) -> FloatArray:
    """Return the final losses of `count` runs, (count,); all agents get the same runs.

    The loss of a diverged run is the threshold of divergence.
    """
    agents = [make(seed) for seed in range(count)]
    settings = {**run_settings(args), **agents[0].settings, "trainer": trainer}
    envs = make_envs(settings.pop("corpus"), count, **settings)
    _, infos = envs.reset(seed=CHECK_SEED)  # draws every member's instance
    trajectories = run_population(
        envs,
        agents,
        infos["seed"].tolist(),
        infos["learning_rate"].tolist(),
        learning=False,
    )
    return np.array([trajectory[-1]["val_loss"] for trajectory in trajectories])


class Keep(Agent):
    """Never touches the rate."""

    settings = {"min_lr": 1e-8, "max_lr": 10.0}  # noqa: RUF012 - read only

    def __init__(self, seed: int) -> None:
        """`seed` is unused."""


def fine_tune(agent: DeepAgent, args: Args) -> list[dict[str, Any]]:
    """Alternate real runs, refitting and learning; return the report of each round."""
    seen: dict[str, list[RecordedRun]] = {c: [] for c in family(args.scale)["corpora"]}
    laws = {corpus: packaged_law(corpus, args.scale) for corpus in seen}
    files = {c: str(args.out / "laws" / f"{c}-{args.scale}.json") for c in seen}
    (args.out / "laws").mkdir(parents=True, exist_ok=True)
    rounds = []
    for number in range(args.rounds):
        path = args.out / f"policy-{number}.safetensors"
        export_policy(agent.model, path)
        outcome: dict[str, Any] = {}
        for place, corpus in enumerate(seen):
            seeds = [ROLLOUT_SEED + 1_000 * number + n for n in range(args.rollouts)]
            draw = np.random.default_rng([args.seed, number, place])
            low, high = np.log(LR_MULTIPLIER_RANGE)
            wrong = np.exp(draw.uniform(low, high, args.rollouts))
            runs = record_runs(
                partial(saved_agent, path),
                corpus,
                seeds,
                (GOOD_LR * wrong).tolist(),
                scale=args.scale,
            )
            seen[corpus] += runs
            before = final_errors(laws[corpus], runs)
            laws[corpus] = refit_law(corpus, args.scale, args.fitted_on, seen[corpus])
            laws[corpus].save(files[corpus])
            outcome[corpus] = {
                # `None` of a run that diverged
                "final_val_loss": [
                    float(loss) if np.isfinite(loss) else None
                    for loss in (run.val_loss[-1] for run in runs)
                ],
                "error_before_refitting": before.tolist(),
                "error_after_refitting": final_errors(laws[corpus], runs).tolist(),
            }
            shown = f"error {before.mean():.4f}" if len(before) else "all diverged"
            print(f"round {number}, {corpus}: {shown}", flush=True)
        rounds.append(outcome)
        agent.train(simulated(args, files), args.round_episodes)
    return rounds


def check(args: Args) -> None:
    """Validate the arguments before any training.

    Raises:
        ValueError: A count is out of range, or there is no law at the scale.
        FileNotFoundError: The recorded runs of a law are not in `fitted_on`.
    """
    corpora = family(args.scale)["corpora"]
    for name in ("rounds", "checks", "real"):
        check_integer(f"--{name}", getattr(args, name), 0)
    for name in ("episodes", "num_envs", "rollouts", "round_episodes"):
        check_count(f"--{name.replace('_', '-')}", getattr(args, name))
    for corpus in corpora if args.rounds else ():
        path = args.fitted_on / f"{corpus}-{args.scale}-fit.npz"
        if not path.exists():
            raise FileNotFoundError(
                f"--rounds needs {path}, which python -m benchmarks.surrogate.fitting "
                "writes; --fitted-on names its folder"
            )


def main(args: Args) -> dict[str, Any]:
    """Learn, fine-tune, save, test; return the report."""
    check(args)
    try:
        with only_process(args.out / ".running"):
            return train_and_test(args)
    except OSError as error:
        raise SystemExit(f"error: {error}") from error


def train_and_test(args: Args) -> dict[str, Any]:
    """Learn, fine-tune, save, test, as `main` does; no second process writes here."""
    env = simulated(args)
    agent = learner(args, env)
    started = time.perf_counter()
    agent.train(env, args.episodes)
    seconds = time.perf_counter() - started
    path = args.out / "policy.safetensors"
    rounds = fine_tune(agent, args)
    export_policy(agent.model, path, provenance={"family": family(args.scale)})
    makers: dict[str, Callable[[int], Agent]] = {
        "controller": partial(saved_agent, path),
        "ramp_and_undo": RampAndUndoAgent,
        "update_size": UpdateSizeAgent,
        "keep": Keep,
    }
    if rounds:
        first = args.out / "policy-0.safetensors"
        makers["before fine-tuning"] = partial(saved_agent, first)
    report: dict[str, Any] = {
        "simulated_episodes": agent.training_episodes,
        "seconds": seconds,  # of learning, before any fine-tuning
        "rounds": rounds,
        "final_val_loss": {},
    }
    for trainer, count in (("surrogate", args.checks), ("real", args.real)):
        if not count:
            continue
        losses = {
            name: final_losses(make, trainer, count, args)
            for name, make in makers.items()
        }
        report["final_val_loss"][trainer] = {k: v.tolist() for k, v in losses.items()}
        for name, final in losses.items():
            gap = final - losses["update_size"]
            print(
                f"{trainer:9s} {name:13s} mean {final.mean():.4f}  "
                f"median {np.median(final):.4f}  "
                f"worst tenth {np.quantile(final, 0.9):.4f}"
                f"  minus update_size {gap.mean():+.4f}"
            )
    write_text(args.out / "report.json", json.dumps(report, indent=1) + "\n")
    print(f"policy: {path}, learned in {seconds:.0f} s")
    return report


if __name__ == "__main__":
    arguments = parse_command_line(Args, __doc__)
    with one_line_errors():
        check(arguments)
    main(arguments)
