"""One update of every member: batch, loss, gradient, optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from lr_gym.config import TrainingConfig
from lr_gym.trainers.adamw import AdamW
from lr_gym.trainers.batches import windows_at
from lr_gym.trainers.loss import PopulationLoss

# Fields of `TrainingConfig` that an update does not depend on, or only by way of the
# device, the number format and the text, which are told apart by themselves.
FIELDS_NOT_IN_STEP = (
    *("corpus", "test_fraction", "scale", "max_iters", "eval_interval"),
    *("warmup_iters", "learning_rate", "evaluation", "eval_tokens", "eval_iters"),
    *("device", "precision", "compile"),
)


@dataclass(frozen=True)
class TrainingStep:
    """What an update is made of; the runs' own state is handed to it.

    Attributes:
        config: Batch and model.
        objective: Loss and gradients.
        optimizer: What makes weights of them.
    """

    config: TrainingConfig
    population_loss: PopulationLoss
    optimizer: AdamW

    def __call__(
        self,
        state: dict[str, Tensor],
        tokens: Tensor,
        rate: Tensor,
        starts: Tensor,
        dropout_keys: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Make one update of every member in place; return losses and norms, (E,).

        Args:
            state: Of E members, by name; changed in place.
            tokens: The training split, (N,) integers.
            rate: Each member's learning rate, (E,) float64.
            starts: Where in `tokens` each window begins, (E, B) int64.
            dropout_keys: Of each member's dropout masks, (E, sites) int64.
        """
        windows = windows_at(tokens, starts, self.config.block_size)
        loss, gradients = self.population_loss.gradients(
            state["parameters"], windows, dropout_keys
        )
        # The one line the paper's code lacked: the agent's rate is the rate used.
        state["learning_rate"].copy_(rate)
        norm, healthy = self.optimizer.step(
            state, gradients, state["healthy"] & loss.isfinite()
        )
        state["healthy"].copy_(healthy)
        return loss, norm

    @property
    def key(self) -> tuple[object, ...]:
        """Equal in two steps that make the same update of the same state."""
        given = asdict(self.config)
        used = tuple((k, v) for k, v in given.items() if k not in FIELDS_NOT_IN_STEP)
        shapes = tuple(self.population_loss.shapes.items())  # the vocabulary is in them
        return (*used, shapes, self.population_loss.compute_dtype, self.optimizer)
