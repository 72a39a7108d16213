"""Every committed result: its files, its code, and what can be run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.checks import job_runs, other_runs, simulated_runs
from benchmarks.checks.runs import Run
from benchmarks.paths import RESULTS

MakeRuns = Callable[[Path], list[Run]]


@dataclass(frozen=True)
class Result:
    """A committed result.

    Attributes:
        files: Patterns of all its files, below the folder of results; the first names
            the file or folder that `runs` takes, and holds the provenance.
        modules: The scripts that made it; with all that they import, its numbers
            depend on them.
        runs: Returns what can be run again; `None` for seconds, which belong to a
            machine, and for clients in virtual environments of their own.
    """

    files: tuple[str, ...]
    modules: tuple[str, ...]
    runs: MakeRuns | None

    def place(self, root: Path = RESULTS) -> Path:
        """Return the file or folder that `runs` takes."""
        return root / self.files[0].removesuffix("/**")

    def paths(self, root: Path = RESULTS) -> list[Path]:
        """Return all files of the result."""
        found = {path for pattern in self.files for path in _matches(root, pattern)}
        return sorted(found)


def _matches(root: Path, pattern: str) -> list[Path]:
    if pattern.endswith("/**"):
        folder = root / pattern.removesuffix("/**")
        return [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in root.glob(pattern) if path.is_file()]


def _one(name: str, module: str, runs: MakeRuns | None) -> tuple[str, Result]:
    """Return the name and the entry of a result of one file, or of one folder."""
    pattern = name if name.endswith(".json") else f"{name}/**"
    modules = (f"benchmarks.{module}",)
    return name.removesuffix(".json"), Result((pattern,), modules, runs)


_WRONG_RATES = (  # end of the file's name, corpus, settings
    ("", "shakespeare", "{}"),
    ("_markov", "markov", "{}"),
    ("_text8", "text8", "{}"),
    ("_lstm", "shakespeare", '{"architecture": "lstm"}'),
    ("_conv", "shakespeare", '{"architecture": "conv", "compile": "default"}'),
)
_LAWS = tuple(f"{c}-{s}" for s in ("tiny", "mini") for c in simulated_runs.LAW_CORPORA)
_TINY = Result(
    tuple(f"comparison/tiny/{name}" for name in ("jobs.tar.xz", "*.*")),
    ("benchmarks.compare_agents",),
    partial(job_runs.archived, scale="tiny"),
)

REGISTRY: dict[str, Result] = {
    "comparison/tiny": _TINY,
    # Its jobs are in the archive above.
    "comparison/tiny/final": Result(
        ("comparison/tiny/jobs.tar.xz", "comparison/tiny/final/**"),
        ("benchmarks.compare_agents",),
        partial(job_runs.archived, scale="mini"),
    ),
    **dict(
        [
            _one("comparison/quick", "compare_agents", job_runs.quick),
            _one(
                "comparison/lr_matters.json",
                "comparison.lr_matters",
                other_runs.sweep_runs,
            ),
            _one("paper/mini", "paper.tables", job_runs.paper_runs),
        ]
    ),
    **{
        f"controller/{name}": Result(
            (f"controller/{name}/jobs.tar.xz", f"controller/{name}/**"),
            ("benchmarks.controller.tuning_free",),
            partial(job_runs.archived, scale="tiny"),
        )
        for name in ("tuning_free", "tuning_free_v2", "tuning_free_v3")
    },
    **dict(
        _one(
            f"controller/wrong_rates{suffix}.json",
            "controller.wrong_rates",
            partial(job_runs.wrong_rate_runs, env=env, settings=settings),
        )
        for suffix, env, settings in _WRONG_RATES
    ),
    **dict(
        [
            _one("controller/widths.json", "controller.widths", job_runs.width_runs),
            _one(
                "controller/widths_384.json",
                "controller.widths",
                partial(job_runs.width_runs, peaks=(5e-4, 1e-3, 2e-3)),
            ),
            _one(
                "controller/rule_choice.json",
                "controller.rule_choice",
                job_runs.rule_choice_runs,
            ),
            _one(
                "controller/foreign_loops.json",
                "controller.foreign_loops",
                other_runs.loop_runs,
            ),
            _one(
                "controller/controller_features.json",
                "controller.features",
                other_runs.feature_runs,
            ),
            _one("controller/controller_cost.json", "controller.cost", None),
            _one("controller/users", "controller.users.compare", other_runs.user_runs),
        ]
    ),
    "controller_fine_tuned": Result(
        ("controller_fine_tuned/**",),
        ("agents.train_controller",),
        other_runs.policy_runs,
    ),
    **{
        f"surrogate/{law}": Result(
            tuple(
                f"surrogate/{law}{end}"
                for end in (
                    ".json",
                    "-report.json",
                    "-fit.npz",
                    "-held-out.npz",
                    ".svg",
                )
            ),
            ("benchmarks.surrogate.fitting",),
            simulated_runs.law_result_runs,
        )
        for law in _LAWS
    },
    **{
        f"surrogate/{law}-proposals": Result(
            tuple(f"surrogate/{law}-proposals.{end}" for end in ("json", "npz")),
            ("benchmarks.surrogate.proposals",),
            simulated_runs.proposal_runs,
        )
        for law in _LAWS
    },
    **dict(
        [
            _one(
                "surrogate/damage.json", "surrogate.damage", simulated_runs.damage_runs
            ),
            _one(
                "surrogate/optimum.json",
                "surrogate.optimum",
                simulated_runs.optimum_runs,
            ),
            _one(
                "surrogate/exploit.json",
                "surrogate.exploit",
                simulated_runs.exploit_runs,
            ),
            _one("surrogate/speed.json", "surrogate.speed", None),
            _one("surrogate/intervals.json", "surrogate.intervals", None),
            # The curves are not in the checkout.
            _one("surrogate/public_curves.json", "surrogate.public_curves", None),
            _one("speed/throughput", "speed.throughput", None),
            _one("speed/scale_out.json", "speed.scale_out", None),
            _one(
                "speed/architectures.json",
                "speed.architectures",
                other_runs.sweep_runs,
            ),
            _one("speed/precision.json", "speed.precision", other_runs.precision_runs),
            _one(
                "speed/ppo_population.json",
                "speed.ppo_population",
                other_runs.population_runs,
            ),
        ]
    ),
    "gpu": Result(("gpu/**",), ("benchmarks.speed.gpu_queue",), None),
    "clients/compatibility": Result(
        ("clients/compatibility.json",), ("benchmarks.clients.compatibility",), None
    ),
    "clients/stock_learners": Result(
        ("clients/stock_learners.json", "clients/stock_learners.svg"),
        ("benchmarks.clients.stock_learners",),
        other_runs.learner_runs,
    ),
}
