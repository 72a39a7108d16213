"""Does the device compute the same as a CPU? Small models, one check per sub-run.

References are computed on the CPU in the same process, in float32. A check records
whether it ``passed``, what it ``measured`` and the ``bound``. ``passed`` is null if the
check cannot run on this machine or version; ``note`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.speed.gpu import correct_env
from benchmarks.speed.gpu.checks import BITWISE_EQUAL, Check, check_bound, skipped_check
from benchmarks.speed.gpu.session import Session, SubRun
from lr_gym import PopulationTrainer, TrainingConfig, load_corpus
from lr_gym.trainers.base import FloatArray

SIZES = (1, 3, 8)
DROPOUTS = (0.0, 0.2)
MODES = ("off", "graph", "default")
SECONDS = {
    "off": 1.0,
    "graph": 6.0,  # it compiles
    "default": 2.0,  # the same compiled step, without the graph
    "compiled": 1.0,  # an earlier check has compiled it
    "environment": 2.0,
    "attention": 25.0,
}
# Nats. On a CPU, a relative error of 1e-6 in the weights changes these losses by 6e-6,
# and other dropout masks change them by 1e-2.
LOSS_TOLERANCE = 1e-4
# The relative error of one rounding to the 8 bits of bfloat16 is at most 2**-8 = 0.4 %.
# A loss averages over many roundings; on a CPU its error is 0.02 %.
BFLOAT16_TOLERANCE = 2.0**-8
DIVERGING_LR = 1e30


@dataclass(frozen=True)
class Curve:
    """Losses of a population, and its final state."""

    train_loss: FloatArray  # (chunks, E)
    val_loss: FloatArray  # (E,)
    state: Mapping[str, torch.Tensor]

    def distance(self, other: Curve, members: Sequence[int] | None = None) -> float:
        """Return the largest difference of any loss of `members`, nats, or NaN."""
        selected = slice(None) if members is None else list(members)
        gaps = (
            (self.train_loss - other.train_loss)[:, selected],
            (self.val_loss - other.val_loss)[None, selected],
        )
        return float(np.abs(np.concatenate(gaps)).max())


def plan(session: Session) -> list[SubRun]:
    """Return the checks."""
    subs = [
        _sub(f"{mode}, E={size}, dropout {dropout:g}", mode, session, check)
        for mode in MODES
        for size in SIZES
        for dropout in DROPOUTS
        for check in [partial(same_updates, session, mode, size, dropout)]
    ]
    for mode in MODES:
        checks: dict[str, Callable[[], Check]] = {
            "bfloat16": partial(bfloat16, session, mode),
            "snapshot": partial(snapshot, session, mode),
            "divergence": partial(divergence, session, mode),
            "same seed twice": partial(same_seed, session, mode),
            "partial groups": partial(partial_groups, session, mode),
        }
        for name, check in checks.items():
            compiled = mode != "off" and name != "bfloat16"
            kind = "compiled" if compiled else mode
            subs.append(_sub(f"{name}, {mode}", mode, session, check, kind))
    for name, check in correct_env.checks(session).items():
        seconds = SECONDS["attention" if "attention" in name else "environment"]
        subs.append(SubRun(name, session.pick(seconds, 0.0), _in_float32(check)))
    return subs


def headline(runs: Mapping[str, Any]) -> str:
    """Return how many checks passed."""
    passed = [run["passed"] for run in runs.values() if run["passed"] is not None]
    return f"{sum(passed)} of {len(passed)} checks passed"


def _sub(
    name: str,
    mode: str,
    session: Session,
    check: Callable[[], Check],
    kind: str | None = None,
) -> SubRun:
    if mode not in session.modes:
        check = partial(skipped_check, f"compile={mode!r} is tried on CUDA only")
    return SubRun(name, session.pick(SECONDS[kind or mode], 0.0), _in_float32(check))


def _in_float32(check: Callable[[], Check]) -> Callable[[], Check]:
    def run() -> Check:
        with without_tf32():
            return check()

    return run


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute float32 products in full float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# --------------------------------------------------------------------- the populations


def config_of(session: Session, mode: str, **overrides: Any) -> TrainingConfig:
    """Return a model with one layer in float32, which compiles fast."""
    small = {
        "n_layer": 1,
        "eval_tokens": 2_048,
        "precision": "float32",
        "compile": mode,
        **overrides,
    }
    return session.configure("tiny", "markov", **small)


def on_cpu(config: TrainingConfig) -> TrainingConfig:
    """Return the run of the reference on the CPU."""
    return replace(config, device="cpu", compile="off", precision="float32")


def trainer_of(config: TrainingConfig, size: int) -> PopulationTrainer:
    """Return a new population with seeds from 0."""
    trainer = PopulationTrainer(config, load_corpus("markov"), size)
    trainer.reset(range(size), range(size))
    return trainer


def rates_of(config: TrainingConfig, size: int) -> FloatArray:
    """Return a different learning rate for every member."""
    return np.asarray(config.learning_rate * (1.0 + 0.2 * np.arange(size)))


def train(session: Session, trainer: PopulationTrainer, rates: FloatArray) -> Curve:
    """Make 20 updates, in chunks of several lengths."""
    chunks = session.pick((1, 4, 15), (1, 3))
    losses = [trainer.train(count, rates) for count in chunks]
    return Curve(np.stack(losses), trainer.evaluate(), trainer.state_dict())


_references: dict[tuple[TrainingConfig, int], Curve] = {}


def reference(session: Session, config: TrainingConfig, size: int) -> Curve:
    """Return the curve of the same runs on the CPU, computed once."""
    key = on_cpu(config), size
    if key not in _references:
        trainer = trainer_of(*key)
        _references[key] = train(session, trainer, rates_of(config, size))
    return _references[key]


# ------------------------------------------------------------------------- the checks


def same_updates(session: Session, mode: str, size: int, dropout: float) -> Check:
    """Compare 20 updates on the device and on the CPU."""
    config = config_of(session, mode, dropout=dropout)
    ours = train(session, trainer_of(config, size), rates_of(config, size))
    return check_bound(ours.distance(reference(session, config, size)), LOSS_TOLERANCE)


def bfloat16(session: Session, mode: str) -> Check:
    """Compare 20 updates in bfloat16 with float32 on the CPU, relative to the loss."""
    config = config_of(session, mode, dropout=0.2, precision="bfloat16")
    ours = train(session, trainer_of(config, 3), rates_of(config, 3))
    theirs = reference(session, config, 3)
    return check_bound(
        ours.distance(theirs) / float(theirs.val_loss.min()), BFLOAT16_TOLERANCE
    )


def snapshot(session: Session, mode: str) -> Check:
    """Check that a restored snapshot has the same bits, and that training continues."""
    config = config_of(session, mode, dropout=0.2)
    trainer, rates = trainer_of(config, 3), rates_of(config, 3)
    trainer.train(5, rates)
    state = trainer.snapshot(range(3))
    first = train(session, trainer, rates)
    trainer.restore(range(3), state)
    restored = {
        "numbers that differ after the restore": differing_bits(
            state, trainer.state_dict()
        )
    }
    second = train(session, trainer, rates)
    return alike(mode, first, second, [0, 1, 2], restored)


def divergence(session: Session, mode: str) -> Check:
    """Check that a diverged member is frozen, and that the others do not change."""
    config = config_of(session, mode, dropout=0.2)
    rates = rates_of(config, 3)
    whole = train(session, trainer_of(config, 3), rates)
    trainer = trainer_of(config, 3)
    rates[1] = DIVERGING_LR
    broken = train(session, trainer, rates)
    frozen = trainer.snapshot([1])["parameters"]
    trainer.train(2, rates)
    measured = {
        "members that did not freeze": float(not trainer.diverged()[1]),
        "others that froze": float(trainer.diverged()[[0, 2]].sum()),
        "weights of the frozen member that changed": differing_bits(
            {"parameters": frozen}, trainer.snapshot([1])
        ),
    }
    return alike(mode, whole, broken, [0, 2], measured)


def alike(
    mode: str,
    one: Curve,
    other: Curve,
    members: list[int],
    measured: dict[str, float],
) -> Check:
    """Return whether members trained alike, and whether counts are 0.

    Without compilation all bits must be equal. A compiled step adds the gradients of
    the embedding in any order, so there the losses must be close.
    """
    measured["largest difference of a loss"] = one.distance(other, members)
    differing = differing_bits(
        {name: rows[members] for name, rows in one.state.items()},
        {name: rows[members] for name, rows in other.state.items()},
    )
    if mode == "off":
        measured["numbers that differ"] = differing
        return check_bound(measured, BITWISE_EQUAL)
    return check_bound(measured, LOSS_TOLERANCE) | {"numbers that differ": differing}


def same_seed(session: Session, mode: str) -> Check:
    """Check that the same seed gives close losses twice; report differing bits."""
    config = config_of(session, mode, dropout=0.2)
    first, second = (
        train(session, trainer_of(config, 3), rates_of(config, 3)) for _ in range(2)
    )
    return check_bound(first.distance(second), LOSS_TOLERANCE) | {
        "numbers that differ": differing_bits(first.state, second.state)
    }


def partial_groups(session: Session, mode: str) -> Check:
    """Compare members with different numbers of updates on the device and the CPU."""
    config = config_of(session, mode, dropout=0.2)
    rates = rates_of(config, 3)
    losses = []
    for run_config in (config, on_cpu(config)):
        trainer = trainer_of(run_config, 3)
        trainer.train([3, 0, 5], rates)
        trainer.train(2, rates)
        losses.append(trainer.evaluate())
    return check_bound(float(np.abs(losses[0] - losses[1]).max()), LOSS_TOLERANCE)


def differing_bits(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
) -> float:
    """Return the number of values of `one` that differ in `other`; NaN equals NaN."""
    count = 0
    for name, rows in one.items():
        a, b = rows.cpu(), other[name].cpu()
        both_nan = (a != a) & (b != b)
        count += int(((a != b) & ~both_nan).sum())
    return float(count)
