"""A small multi-layer perceptron that chooses actions; needs NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lr_gym.mdp.config import MDPConfig
from lr_gym.validation import check_choice, check_real

Array = NDArray[np.float32]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0.0)),
}


@dataclass(frozen=True)
class Normaliser:
    """Standardizes observations like `VecNormalize` of stable-baselines3.

    Attributes:
        mean: (F,) float64.
        variance: (F,) float64, at least 0.
        epsilon: Added to the variance, above 0.
        clip: Bound of the results, which lie in [-clip, clip]; above 0.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    epsilon: float
    clip: float

    def __post_init__(self) -> None:
        """Check the numbers; `MLP.check` checks the shapes."""
        check_real("epsilon", self.epsilon, 0.0, low_open=True)
        check_real("clip", self.clip, 0.0, low_open=True)
        if (self.variance < 0).any():
            raise ValueError("variance must not be negative")

    def __call__(self, observation: Array) -> Array:
        """Return the standardized observation, (F,) float32."""
        scaled = (observation - self.mean) / np.sqrt(self.variance + self.epsilon)
        return np.asarray(np.clip(scaled, -self.clip, self.clip), dtype=np.float32)


@dataclass(frozen=True)
class MLP:
    """Linear layers with one activation function between them.

    Attributes:
        weights: One array per layer, (out, in) float32.
        biases: One array per layer, (out,) float32.
        activation: One of `ACTIVATIONS`.
        continuous: Whether the outputs are a continuous action; else they score the
            discrete actions.
        normaliser: Standardizes the observation first; `None` does not.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activation: str
    continuous: bool = False
    normaliser: Normaliser | None = None

    def check(self, config: MDPConfig) -> None:
        """Raise ValueError unless inputs and outputs fit the features and actions."""
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        if not self.weights or len(self.weights) != len(self.biases):
            raise ValueError("an MLP needs layers, each with weights and biases")
        if self.continuous != (config.action_type == "continuous"):
            raise ValueError(
                f"continuous={self.continuous} does not fit action_type="
                f"{config.action_type!r}"
            )
        discrete = len(config.lr_factors) + config.allow_undo
        actions = config.action_size if self.continuous else discrete
        width = len(config.features)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if weight.ndim != 2 or bias.shape != weight.shape[:1]:
                raise ValueError(
                    f"layer {i} has weights {weight.shape} and biases {bias.shape}"
                )
            if weight.shape[1] != width:
                raise ValueError(
                    f"layer {i} has {weight.shape[1]} inputs, must have {width}"
                )
            width = weight.shape[0]
        if width != actions:
            raise ValueError(f"the last layer has {width} outputs, must have {actions}")
        if self.normaliser is not None:
            shape = (len(config.features),)
            mean, variance = self.normaliser.mean, self.normaliser.variance
            if not mean.shape == variance.shape == shape:
                raise ValueError(
                    f"the normaliser's mean and variance must have shape {shape}"
                )

    def __call__(self, observation: Array, decisions: int) -> int | Array:
        """Return the action with the highest score, or the continuous action.

        Args:
            observation: (F,) float32.
            decisions: Ignored.
        """
        hidden = (
            observation if self.normaliser is None else self.normaliser(observation)
        )
        activate = ACTIVATIONS[self.activation]
        last = len(self.weights) - 1
        # Finite weights can overflow; the result is then an arbitrary action, no error.
        with np.errstate(over="ignore", invalid="ignore"):
            for i, (weight, bias) in enumerate(
                zip(self.weights, self.biases, strict=True)
            ):
                hidden = weight @ hidden + bias
                hidden = hidden if i == last else activate(hidden)
        if self.continuous:
            return np.asarray(np.clip(np.nan_to_num(hidden), -1.0, 1.0))
        return int(hidden.argmax())
