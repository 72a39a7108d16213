"""`PopulationTrainer`: E real training runs side by side, in one process.

Shapes: E members, B batch, T time, P parameters, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from lr_gym.config import TrainingConfig, check_choice
from lr_gym.corpora import Corpus
from lr_gym.devices import resolve_device, resolve_precision
from lr_gym.models.gpt import GPT, initial_parameters
from lr_gym.optim import AdamW, initial_state
from lr_gym.random_streams import fold, stream_seeds
from lr_gym.trainer import FloatArray, check_chunk
from lr_gym.windows import IGNORE, cut_windows, sample_windows

SPLITS = ("train", "val", "test")
ARCHITECTURE = ("block_size", "n_layer", "n_head", "n_embd", "dropout", "bias")
EVALUATION_TOKENS = 8_192  # per forward pass of an evaluation: fits a CPU's cache


class PopulationTrainer:
    """E runs of one model shape on one corpus and one device.

    Members share the corpus in device memory and nothing else. A member's loss curve
    depends on its own seed and learning rates alone: the same in a population of any
    size (to rounding), bit for bit repeatable on a CPU. A member whose loss or gradient
    is not finite is frozen as it is; the others go on untouched.
    """

    def __init__(self, config: TrainingConfig, corpus: Corpus, size: int = 1) -> None:
        """Prepare the population; every member starts as a run of seed 0.

        Args:
            config: Model, batch, optimizer, evaluation, device and precision.
            corpus: The text, as `lr_gym.load_corpus` returns it.
            size: E, at least 1.

        Raises:
            ValueError: `size` is below 1, a split is too short for `block_size`, or
                the device is unknown or absent.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if len(corpus.train) <= config.block_size:
            raise ValueError(
                f"corpus {corpus.name!r} is too short: its training split has "
                f"{len(corpus.train)} characters, and block_size={config.block_size} "
                "needs more than that; pass a longer text or a smaller block_size"
            )
        if len(corpus.val) < 2:
            raise ValueError(
                f"corpus {corpus.name!r} is too short: its validation split has "
                f"{len(corpus.val)} characters and needs at least 2"
            )
        self.size = size
        self.config = config
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        self.compute_dtype: torch.dtype = getattr(torch, self.precision)
        self.corpus_facts = corpus.facts()
        self._splits = {
            name: torch.from_numpy(getattr(corpus, name).copy()).to(self.device)
            for name in SPLITS
        }
        self._cut: dict[tuple[str, bool], tuple[Tensor, int]] = {}
        self._architecture: dict[str, Any] = {
            name: getattr(config, name) for name in ARCHITECTURE
        }
        self._architecture["vocab_size"] = corpus.vocab_size
        self._model = self._skeleton()
        # Matrices first: weight decay then acts on one slice of the flat vector.
        shapes = [(name, p.shape) for name, p in self._model.named_parameters()]
        shapes.sort(key=lambda item: len(item[1]) < 2)
        self._shapes: dict[str, torch.Size] = dict(shapes)
        self.optimizer = AdamW(
            decayed=sum(shape.numel() for _, shape in shapes if len(shape) >= 2),
            beta1=config.beta1,
            beta2=config.beta2,
            weight_decay=config.weight_decay,
            grad_clip=config.grad_clip,
        )
        self._state = self._fresh_state([0] * size)
        self._telemetry = {
            name: np.zeros(size) for name in ("grad_norm", "update_ratio", "seconds")
        }

    # ---------------------------------------------------------------- the protocol

    def reset(self, members: Sequence[int], seeds: Sequence[int]) -> None:
        """Start fresh runs for `members`, one seed each; see `Trainer.reset`."""
        if len(members) != len(seeds):
            raise ValueError(f"got {len(members)} members but {len(seeds)} seeds")
        self._assign(members, self._fresh_state(seeds))
        for values in self._telemetry.values():
            values[list(members)] = 0.0

    def train(
        self,
        iterations: int | ArrayLike,
        learning_rate: ArrayLike,
        on_iteration: Callable[[], object] | None = None,
    ) -> FloatArray:
        """Train each member for its number of updates; see `Trainer.train`.

        Raises:
            ValueError: A learning rate or a number of iterations is negative or not
                finite, or shapes do not fit.
        """
        counts, rates = check_chunk(iterations, learning_rate, self.size)
        started = time.perf_counter()
        losses = np.full((self.size, int(counts.max(initial=0))), np.nan)
        done = 0
        # Members may want different numbers of updates: all that still run go together.
        for stop in np.unique(counts[counts > 0]):
            rows = np.flatnonzero(counts >= stop)
            state = self._select(rows)
            losses[rows, done:stop] = self._run(
                state, rates[rows, done:stop], rows, on_iteration
            )
            self._assign(rows, state)
            done = int(stop)
        self._telemetry["seconds"][counts > 0] += time.perf_counter() - started
        finite = np.isfinite(losses)
        total = np.where(finite, losses, 0.0).sum(axis=1)
        return np.where(finite.any(axis=1), total / finite.sum(axis=1).clip(1), np.nan)

    @torch.no_grad()
    def evaluate(self, split: str = "val", *, exact: bool = False) -> FloatArray:
        """Return the loss on `split`, (E,), in nats per character.

        Args:
            split: ``train``, ``val`` or ``test``.
            exact: Predict every character of the split, whatever the configuration.

        Raises:
            ValueError: `split` is unknown or empty.
        """
        check_choice("split", split, SPLITS)
        if len(self._splits[split]) < 2:
            raise ValueError(f"split {split!r} is empty: test_fraction is 0")
        if self.config.evaluation == "paper" and not exact:
            return self._random_batch_loss(split)
        windows, predictions = self._evaluation_windows(split, exact)  # (N, T + 1)
        chunk = max(1, EVALUATION_TOKENS // self.config.block_size)
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        for part in torch.split(windows, chunk):
            shared = part.expand(self.size, *part.shape)
            total += self._losses(shared, reduction="sum").double()
        return np.asarray(total.cpu() / predictions)

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members are frozen, (E,) bool."""
        return np.asarray(~self._state["healthy"].cpu())

    def snapshot(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Copy the rows of `members`: plain tensors, ready for safetensors."""
        return {
            name: rows.clone() if rows is self._state[name] else rows
            for name, rows in self._select(members).items()
        }

    def restore(
        self,
        members: Sequence[int],
        state: Mapping[str, Tensor],
        *,
        rewind: bool = True,
    ) -> None:
        """Put a snapshot back; see `Trainer.restore`.

        Raises:
            ValueError: The state is not one of this trainer's: names or shapes differ.
        """
        for name, own in self._state.items():
            expected = (len(members), *own.shape[1:])
            found = tuple(state[name].shape) if name in state else None
            if found != expected:
                raise ValueError(
                    f"state[{name!r}] must have shape {expected}, got {found}"
                )
        kept = () if rewind else ("iteration",)
        self._assign(members, {k: v for k, v in state.items() if k not in kept})

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of all members' state, for `safetensors.torch.save_file`."""
        return self.snapshot(range(self.size))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`; raises ValueError where it does not fit."""
        self.restore(range(self.size), state)

    def telemetry(self) -> dict[str, FloatArray]:
        """Return what a training script would log, (E,) each.

        ``grad_norm``: mean before clipping over the last chunk. ``update_ratio``: norm
        of the last update over the norm of the weights. ``tokens``: characters trained
        on. ``seconds``: wall time in `train`, shared by members that train together.
        """
        per_iteration = self.config.batch_size * self.config.block_size
        tokens = np.asarray(self._state["iteration"].cpu()) * float(per_iteration)
        return {**{k: v.copy() for k, v in self._telemetry.items()}, "tokens": tokens}

    # ------------------------------------------------------------ beyond the protocol

    @property
    def iteration(self) -> NDArray[np.int64]:
        """Updates spent by each member, (E,)."""
        return np.asarray(self._state["iteration"].cpu())

    @property
    def learning_rate(self) -> FloatArray:
        """The learning rate inside the optimizer at each member's last update, (E,)."""
        return np.asarray(self._state["learning_rate"].cpu())

    def model(self, member: int = 0) -> GPT:
        """Return a copy of one member as an ordinary module, ready to generate."""
        model = self._skeleton()
        weights = self._unflatten(self._state["parameters"][member].clone())
        model.load_state_dict(weights, assign=True)
        return model

    def _skeleton(self) -> GPT:
        """Return the model without weights: names and shapes, no random numbers."""
        with torch.device("meta"):
            return GPT(**self._architecture)

    # -------------------------------------------------------------------- one chunk

    def _run(
        self,
        state: dict[str, Tensor],
        rates: FloatArray,
        rows: NDArray[np.int64],
        on_iteration: Callable[[], object] | None,
    ) -> FloatArray:
        """Make rates.shape[1] updates of the members in `state`; return (E, n) losses.

        Nothing in the loop waits for the device: losses are read once, at the end.
        """
        steps = rates.shape[1]
        tokens = self._splits["train"]
        schedule = torch.from_numpy(rates).to(self.device)  # (E, n)
        clock = state["iteration"][:, None] + torch.arange(steps, device=self.device)
        data_keys = fold(state["data_key"][:, None], clock)  # (E, n)
        dropout_keys = fold(state["dropout_key"][:, None], clock)
        losses, norms = [], []
        before = state["parameters"]
        for i in range(steps):
            windows = sample_windows(
                tokens, data_keys[:, i], self.config.batch_size, self.config.block_size
            )
            loss, gradients = self._gradients(
                state["parameters"], windows, dropout_keys[:, i]
            )
            # The one line the paper's code lacked: the agent's rate is the rate used.
            state["learning_rate"].copy_(schedule[:, i])
            if i == steps - 1:
                before = state["parameters"].clone()
            norm, healthy = self.optimizer.step(
                state, gradients, state["healthy"] & loss.isfinite()
            )
            state["healthy"].copy_(healthy)

            losses.append(loss)
            norms.append(norm)
            if on_iteration is not None:
                on_iteration()
        state["iteration"] += steps
        change = (state["parameters"] - before).norm(dim=1)
        ratio = change / before.norm(dim=1).clamp(min=1e-12)
        grad_norm = torch.stack(norms, dim=1).nanmean(dim=1)
        self._telemetry["update_ratio"][rows] = ratio.cpu()
        self._telemetry["grad_norm"][rows] = grad_norm.cpu()
        return np.asarray(torch.stack(losses, dim=1).double().cpu())

    def _gradients(
        self, parameters: Tensor, windows: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return losses (E,) and gradients (E, P) of windows (E, B, T + 1)."""
        if len(parameters) == 1:  # the module as it is: no vmap to pay for
            flat = parameters[0].detach().requires_grad_()
            loss = self._loss(flat, windows[0], keys[0])
            (gradient,) = torch.autograd.grad(loss, flat)
            return loss.detach()[None], gradient[None]
        gradients, losses = vmap(grad_and_value(self._loss))(parameters, windows, keys)
        return losses, gradients

    def _losses(self, windows: Tensor, reduction: str) -> Tensor:
        """Return all members' losses (E,) on windows (E, B, T + 1), without dropout."""
        parameters = self._state["parameters"]
        if self.size == 1:
            return self._loss(parameters[0], windows[0], None, reduction)[None]
        return vmap(lambda flat, part: self._loss(flat, part, None, reduction))(
            parameters, windows
        )

    def _loss(
        self,
        flat: Tensor,
        windows: Tensor,
        dropout_key: Tensor | None,
        reduction: str = "mean",
    ) -> Tensor:
        """Cross entropy of one member with flat weights (P,) on windows (B, T + 1)."""
        inputs, targets = windows[:, :-1], windows[:, 1:]
        weights = self._unflatten(flat.to(self.compute_dtype))
        key = dropout_key if self.config.dropout > 0 else None
        inputs = inputs.clamp(min=0)  # padding never reaches a scored position
        logits = functional_call(self._model, weights, (inputs, key))  # (B, T, V)
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORE,
            reduction=reduction,
        )

    def _evaluation_windows(self, split: str, exact: bool) -> tuple[Tensor, int]:
        """Return the windows of a fixed evaluation and their predictions; cut once."""
        if (split, exact) not in self._cut:
            limit = None if exact else self.config.eval_tokens
            windows = cut_windows(self._splits[split], self.config.block_size, limit)
            predictions = int((windows[:, 1:] != IGNORE).sum())
            self._cut[split, exact] = windows, predictions
        return self._cut[split, exact]

    def _random_batch_loss(self, split: str) -> FloatArray:
        """Mean loss over `eval_iters` random batches: the paper's estimate, (E,).

        The batches come from a stream of their own, so training does not notice.
        """
        config, tokens = self.config, self._splits[split]
        if len(tokens) <= config.block_size:
            raise ValueError(
                f"evaluation='paper' needs a {split} split longer than block_size="
                f"{config.block_size}, got {len(tokens)} characters"
            )
        key = fold(self._state["data_key"] + 1, self._state["iteration"])  # (E,)
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        for batch in range(config.eval_iters):
            windows = sample_windows(
                tokens, fold(key, batch), config.batch_size, config.block_size
            )
            total += self._losses(windows, reduction="mean").double()
        return np.asarray(total.cpu() / config.eval_iters)

    # ----------------------------------------------------------- rows of the population

    def _fresh_state(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        rows, keys = [], []
        for seed in seeds:
            init_seed, data_seed, dropout_seed = stream_seeds(seed, 3)
            generator = torch.Generator().manual_seed(init_seed)
            weights = initial_parameters(self._model, generator)
            rows.append(torch.cat([weights[name].flatten() for name in self._shapes]))
            keys.append((data_seed, dropout_seed))
        state = initial_state(torch.stack(rows).to(self.device))
        count = len(seeds)
        key_table = torch.tensor(keys, dtype=torch.int64, device=self.device)
        state["data_key"] = key_table[:, 0].clone()
        state["dropout_key"] = key_table[:, 1].clone()
        state["iteration"] = torch.zeros(count, dtype=torch.int64, device=self.device)
        state["healthy"] = torch.ones(count, dtype=torch.bool, device=self.device)
        return state

    def _select(self, members: ArrayLike) -> dict[str, Tensor]:
        """Return the rows of `members`; the whole population is not copied."""
        rows = torch.as_tensor(np.asarray(members, dtype=np.int64), device=self.device)
        if len(rows) == self.size and np.array_equal(members, range(self.size)):
            return self._state
        return {name: value[rows] for name, value in self._state.items()}

    def _assign(self, members: ArrayLike, state: Mapping[str, Tensor]) -> None:
        """Write the rows of `members`; the inverse of `_select`."""
        rows = torch.as_tensor(np.asarray(members, dtype=np.int64), device=self.device)
        for name, value in state.items():
            if value is not self._state[name]:
                self._state[name][rows] = value.to(self.device)

    def _unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut a flat (P,) vector into named weights; its gradient is one `cat`."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = torch.split(flat, sizes)
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
