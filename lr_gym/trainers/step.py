"""One update of every member: batch, loss, gradient, optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from lr_gym.config import TrainingConfig
from lr_gym.trainers.adamw import AdamW
from lr_gym.trainers.batches import windows_at
from lr_gym.trainers.loss import PopulationLoss

# Fields of `TrainingConfig` that do not change the code of an update. The key of a
# compiled step holds device, number format and text separately.
FIELDS_NOT_IN_STEP = (
    *("corpus", "test_fraction", "scale", "max_iters", "eval_interval"),
    *("warmup_iters", "learning_rate", "evaluation", "eval_tokens", "eval_iters"),
    *("device", "precision", "compile"),
)


@dataclass(frozen=True)
class TrainingStep:
    """One update of a population, as a function of its state.

    Attributes:
        config: Batch and model.
        population_loss: Computes losses and gradients.
        optimizer: Updates the weights.
    """

    config: TrainingConfig
    population_loss: PopulationLoss
    optimizer: AdamW

    def __call__(
        self,
        state: dict[str, Tensor],
        tokens: Tensor,
        lr: Tensor,
        starts: Tensor,
        dropout_keys: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Make one update of every member in place.

        A member with a non-finite loss or gradient is marked in ``state["diverged"]``
        and keeps its weights.

        Args:
            state: Tensors of E members, by name; changed in place.
            tokens: The training split, (N,) integers.
            lr: Learning rates, (E,) float64.
            starts: Index in `tokens` of each window's first character, (E, B) int64.
            dropout_keys: Keys of the dropout masks, (E, sites) int64.

        Returns:
            Training losses and gradient norms before clipping, (E,) each.
        """
        windows = windows_at(tokens, starts, self.config.block_size)
        loss, gradients = self.population_loss.gradients(
            state["parameters"], windows, dropout_keys
        )
        # The paper's code lacked this: its optimizer never got the agent's rate.
        norm, diverged = self.optimizer.step(
            state, gradients, lr, state["diverged"] | ~loss.isfinite()
        )
        state["diverged"].copy_(diverged)
        return loss, norm

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for two steps that make the same update of the same state."""
        fields = tuple(
            (name, value)
            for name, value in asdict(self.config).items()
            if name not in FIELDS_NOT_IN_STEP
        )
        # The embedding's shape holds the vocabulary size.
        shapes = tuple(self.population_loss.shapes.items())
        return (*fields, shapes, self.population_loss.compute_dtype, self.optimizer)
