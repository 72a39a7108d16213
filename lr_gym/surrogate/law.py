r"""A law of the loss curve: from a learning-rate curve to a validation-loss curve.

`LossLaw` holds constants that `fit_surrogate` fits to recorded runs of one model on one
corpus. `initial_state`, `advance` and `validation_loss` are pure functions of arrays
over E members. With the learning rate eta, in nats per character:

    loss     = floor + amplitude (1 + P / progress_scale)^-exponent
               + (plateau - floor - amplitude) exp(-P / early_scale)
               + (initial_loss - plateau) exp(-U / early_scale)
               + temperature + gap_share * gap
    temperature = noise_loss ln(1 + h / noise_rate) (1 + overshoot [v]+)
                  U / (U + noise_onset)
    h        = (1 - slow_noise_share) q + slow_noise_share s
    dU / dn  = efficiency * eta / (1 + eta / saturation_rate)
    dP / dn  = health * dU / dn - forgetting * P dD / dn,     health = exp(-D)
    dq / dn  = noise_decay_rate eta^noise_clock_exponent (eta - q)
    ds / dn  = slow_noise_pace noise_decay_rate eta^noise_clock_exponent (eta - s)
    v, w     = ln eta minus two moving averages of ln eta, with the rates overshoot_pace
               and tolerance_pace; both start at ln(tolerance), the second is never less
    dD / dn  = damage_rate [w - max_log_lr_jump]+^2

P is the progress of the run, U its progress without damage. q and s follow the learning
rate with a short and a long delay. The plateau is the loss of a model that knows only
the frequencies of symbols; a destroyed run stays there. D is permanent damage by
learning rates far above their recent average: it removes progress and slows later
learning. A run diverges at a learning rate above `divergence_rate`: its loss is not
finite.

The power law in a saturating sum of learning rates, and a temperature term in a delayed
learning rate, follow laws published for one peak (Tissue et al. 2024, arXiv 2408.11029;
Luo et al. 2025, arXiv 2503.12811). Damage, tolerance and overshoot were added here,
because those laws fail when the peak varies. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lr_gym.config import TrainingConfig
from lr_gym.files import write_text
from lr_gym.validation import check_integer, check_real, field_names, make_numbers_plain

FloatArray = NDArray[np.float64]
State = dict[str, FloatArray]  # STATE_NAMES, (E,) each

FORMAT = 2
STATE_NAMES = (
    "progress",  # P
    "undamaged",  # U
    "noise",  # q
    "slow_noise",  # s
    "tolerance",  # the slow average of ln eta in w
    "overshoot",  # the one in v
    "damage",  # D
)
SEGMENT = 5  # iterations over which a varying learning rate is averaged
LOWEST_RATE = 1e-7  # in logarithms, lower learning rates are raised to this
# Constants that may be zero, or negative; the others are positive.
_NOT_NEGATIVE = ("floor", "overshoot", "forgetting", "gap_scale", "gap_share")
_SHARES = ("slow_noise_share",)
_ANY_SIGN = ("noise_clock_exponent", "jitter_exponent")
_NOISES = ("jitter", "batch_noise")
_SPREADS = ("efficiency_spread", "tolerance_spread")  # of logarithms
_EXPONENTS = ("gap_exponent",)
MAX_EXPONENT = 5.0  # powers of 1e30 are then finite
_WEIGHTS = {"grad_norm": 4, "update_size": 3}  # constants of a log-linear model


@dataclass(frozen=True, kw_only=True)
class LawConstants:
    """The constants of the law; see the module. All are finite.

    Attributes:
        initial_loss: Validation loss of an untrained model.
        floor: Loss after endless training with a vanishing learning rate.
        amplitude: Total reduction by the power law.
        plateau: Loss of a model that knows only the frequencies of symbols.
        exponent: Exponent of the power law in progress.
        progress_scale: Progress at which the power law starts.
        early_scale: Progress in which a run reaches the plateau.
        saturation_rate: Learning rate above which progress per iteration saturates.
        noise_loss: Loss per e-fold of the noise due to the learning rate.
        noise_rate: Learning rate above which this noise matters.
        noise_onset: Progress without damage after which this noise matters.
        noise_decay_rate: Fraction by which the noise approaches its limit per
            iteration, at learning rate 1.
        noise_clock_exponent: Exponent of that fraction in the learning rate.
        slow_noise_share: Share of the noise that follows the learning rate slowly.
        slow_noise_pace: Its pace over that of the rest.
        overshoot: Extra noise after an increase of the learning rate, per e-fold.
        overshoot_pace: Fraction of it that decays per iteration.
        tolerance: Learning rate that an untrained model tolerates.
        tolerance_pace: Fraction by which the tolerated learning rate approaches the
            current one, per iteration.
        max_log_lr_jump: Largest harmless ln(learning rate / tolerated learning rate).
        damage_rate: Damage per iteration and squared e-fold above that limit.
        forgetting: A unit of damage multiplies the progress by exp(-forgetting).
        divergence_rate: Learning rate above which the run diverges.
        efficiency_spread: Standard deviation of ln(efficiency) over seeds.
        tolerance_spread: Standard deviation of ln(`tolerance`) over seeds.
        jitter: Standard deviation of an evaluation around the law, at learning rate 1.
        jitter_exponent: Exponent of that deviation in the learning rate.
        batch_noise: Standard deviation of the training loss of one batch.
        gap_scale: Validation minus training loss at progress 1.
        gap_exponent: Exponent of that gap in the progress.
        gap_share: Fraction of the gap that raises the validation loss; the rest lowers
            the training loss.
        grad_norm: Coefficients of ln(mean gradient norm over a chunk, before clipping)
            on 1, ln eta, ln(P + progress_scale) and -D.
        update_size: Coefficients of ln(size of an update), see
            `lr_gym.trainers.update_size`, on 1, ln eta and ln(U + progress_scale).
    """

    initial_loss: float
    floor: float
    amplitude: float
    plateau: float
    exponent: float
    progress_scale: float
    early_scale: float
    saturation_rate: float
    noise_loss: float
    noise_rate: float
    noise_onset: float
    noise_decay_rate: float
    noise_clock_exponent: float
    overshoot: float
    overshoot_pace: float
    tolerance: float
    tolerance_pace: float
    max_log_lr_jump: float
    damage_rate: float
    forgetting: float
    divergence_rate: float
    slow_noise_share: float = 0.0
    slow_noise_pace: float = 1.0
    efficiency_spread: float = 0.0
    tolerance_spread: float = 0.0
    jitter: float = 0.0
    jitter_exponent: float = 0.5
    batch_noise: float = 0.0
    gap_scale: float = 0.0
    gap_exponent: float = 1.0
    gap_share: float = 0.0
    grad_norm: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    update_size: tuple[float, ...] = (0.0, 1.0, 0.0)

    def check(self) -> None:
        """Raise TypeError or ValueError if a field is wrong; the message names it."""
        for name, count in _WEIGHTS.items():
            weights = getattr(self, name)
            if not isinstance(weights, tuple) or len(weights) != count:
                raise ValueError(f"{name} must be {count} numbers, got {weights!r}")
            for weight in weights:
                check_real(name, weight, -np.inf)
        for name in field_names(LawConstants):
            value = getattr(self, name)
            if name in _WEIGHTS:
                continue
            if name in _ANY_SIGN:
                check_real(name, value, -MAX_EXPONENT, MAX_EXPONENT)
            elif name in _SHARES:
                check_real(name, value, 0.0, 1.0)
            elif name in _SPREADS + _EXPONENTS:
                positive = name in _EXPONENTS
                check_real(name, value, 0.0, MAX_EXPONENT, low_open=positive)
            else:
                positive = name not in _NOT_NEGATIVE + _NOISES
                check_real(name, value, 0.0, low_open=positive)
        if not self.floor <= self.plateau <= self.initial_loss:
            raise ValueError(
                "plateau must be in [floor, initial_loss], got floor="
                f"{self.floor:g}, plateau={self.plateau:g} and initial_loss="
                f"{self.initial_loss:g}"
            )


@dataclass(frozen=True, kw_only=True)
class LossLaw:
    """A fitted law and a description of the recorded runs. Checked on construction.

    Attributes:
        training: Configuration of the runs: corpus, model, batch size, optimizer.
        constants: The constants of the law.
        entropy_rate: A known lower bound of the loss on the corpus, or `None`.
        lowest_rate: Lowest peak learning rate of the runs.
        highest_rate: Highest peak learning rate. Outside these two the law
            extrapolates.
        runs: Number of recorded runs.
        ensemble: Constants of fits that left out a part of the runs each.
        errors: Errors of those fits on the final losses of the runs that they left out,
            over the expected standard deviations, from the least; see `uncertainty.py`.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of range.
    """

    training: TrainingConfig
    constants: LawConstants
    entropy_rate: float | None = None
    lowest_rate: float
    highest_rate: float
    runs: int = 0
    ensemble: tuple[LawConstants, ...] = ()
    errors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.training, TrainingConfig):
            raise TypeError(f"training must be a TrainingConfig, got {self.training!r}")
        for constants in (self.constants, *self.ensemble):
            constants.check()
        for error in self.errors:
            check_real("errors", error, 0.0)
        if bool(self.ensemble) != bool(self.errors):
            raise ValueError("ensemble and errors must both be given, or neither")
        if self.entropy_rate is not None:
            check_real("entropy_rate", self.entropy_rate, 0.0)
        check_real("lowest_rate", self.lowest_rate, 0.0, low_open=True)
        check_real("highest_rate", self.highest_rate, self.lowest_rate)
        check_integer("runs", self.runs, 0)
        make_numbers_plain(self)
        for constants in (self.constants, *self.ensemble):
            make_numbers_plain(constants)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the law as JSON, which `load_law` reads."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        write_text(path, json.dumps(content, indent=1) + "\n")


# ------------------------------------------------------------------------ the dynamics


@dataclass(frozen=True)
class RunParams:
    """What differs between runs of one law: arrays of shape (E,).

    Attributes:
        efficiency: Factor on the progress per iteration.
        log_tolerance: Added to ln(`tolerance`).
    """

    efficiency: FloatArray
    log_tolerance: FloatArray

    def select(self, index: slice | NDArray[np.int64]) -> RunParams:
        """Return the parameters of some members."""
        return RunParams(self.efficiency[index], self.log_tolerance[index])


def initial_state(law: LawConstants, members: RunParams) -> State:
    """Return the state of untrained runs; some entries are the same array."""
    log_tolerance = np.log(law.tolerance) + members.log_tolerance
    state = dict.fromkeys(STATE_NAMES, np.zeros_like(log_tolerance))
    return state | {"tolerance": log_tolerance, "overshoot": log_tolerance}


def advance(
    law: LawConstants,
    members: RunParams,
    state: State,
    rate: FloatArray,
    iterations: float | NDArray[np.int64] | FloatArray,
) -> State:
    """Return the state after iterations at a constant learning rate.

    Without damage, two calls with half the iterations each give the same state. All
    damage of a call is applied before its progress.

    Args:
        law: The constants.
        members: What differs between the runs.
        state: Before the iterations; not changed.
        rate: Learning rates, (E,), at least 0.
        iterations: One number or (E,); 0 changes nothing.
    """
    positive_rate = np.maximum(rate, LOWEST_RATE)
    log_rate = np.log(positive_rate)
    tolerance_decay = np.exp(-law.tolerance_pace * iterations)
    added_damage = _damage(law, log_rate - state["tolerance"], tolerance_decay)
    lowest_tolerance = np.log(law.tolerance) + members.log_tolerance
    tolerance_target = np.maximum(log_rate, lowest_tolerance)
    damage, progress = state["damage"], state["progress"]
    if added_damage is not None:
        damage = damage + added_damage
        progress = progress * np.exp(-law.forgetting * added_damage)
    learned = (
        members.efficiency * rate / (1.0 + rate / law.saturation_rate) * iterations
    )
    overshoot_decay = np.exp(-law.overshoot_pace * iterations)
    noise_pace = law.noise_decay_rate * np.power(
        positive_rate, law.noise_clock_exponent
    )
    noise_decay = np.exp(-noise_pace * iterations)
    slow_noise = state["slow_noise"]
    if np.any(law.slow_noise_share):
        slow_decay = np.exp(-law.slow_noise_pace * noise_pace * iterations)
        slow_noise = rate + (slow_noise - rate) * slow_decay
    tolerance_gap = tolerance_target - state["tolerance"]
    return {
        "progress": progress + learned * np.exp(-damage),
        "undamaged": state["undamaged"] + learned,
        "noise": rate + (state["noise"] - rate) * noise_decay,
        "slow_noise": slow_noise,
        "tolerance": tolerance_target - tolerance_gap * tolerance_decay,
        "overshoot": log_rate - (log_rate - state["overshoot"]) * overshoot_decay,
        "damage": damage,
    }


def _damage(
    law: LawConstants, jump: FloatArray, decay: FloatArray
) -> FloatArray | None:
    """Return the damage of iterations at a constant learning rate; `None` if none.

    The jump decays exponentially to `decay` times itself, so the square of its excess
    over the limit has a closed integral.
    """
    limit = law.max_log_lr_jump
    above = jump > limit
    if not np.any(above):
        return None
    ratio = limit / np.where(above, jump, limit)
    left = np.maximum(decay, ratio)  # of the jump, where it ends or meets the limit
    area = 0.5 * (jump * jump) * (1.0 - left * left)
    area = area - 2.0 * limit * jump * (1.0 - left)
    area = area - limit * limit * np.log(left)
    return law.damage_rate / law.tolerance_pace * np.where(above, area, 0.0)


def validation_loss(
    law: LawConstants, state: State, log_rate: FloatArray
) -> FloatArray:
    """Return the validation loss without evaluation noise, (E,).

    Args:
        law: The constants.
        state: The runs' state.
        log_rate: ln of the learning rate of the last iteration, (E,).
    """
    progress, undamaged = state["progress"], state["undamaged"]
    noise = state["noise"]
    if np.any(law.slow_noise_share):
        noise = noise + law.slow_noise_share * (state["slow_noise"] - noise)
    rise = np.maximum(log_rate - state["overshoot"], 0.0)
    temperature = (
        law.noise_loss
        * np.log1p(noise / law.noise_rate)
        * (1.0 + law.overshoot * rise)
        * undamaged
        / (undamaged + law.noise_onset)
    )
    top = law.floor + law.amplitude
    power_law = np.power(1.0 + progress / law.progress_scale, -law.exponent)
    loss = (
        law.floor
        + law.amplitude * power_law
        + (law.plateau - top) * np.exp(progress / -law.early_scale)
        + (law.initial_loss - law.plateau) * np.exp(undamaged / -law.early_scale)
        + temperature
    )
    if law.gap_scale > 0.0:
        loss = loss + law.gap_share * generalization_gap(law, state)
    return loss


def generalization_gap(law: LawConstants, state: State) -> FloatArray:
    """Return validation minus training loss, due to memorization, (E,)."""
    return law.gap_scale * np.power(state["progress"], law.gap_exponent)
