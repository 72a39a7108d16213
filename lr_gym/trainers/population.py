"""`PopulationTrainer`: E real training runs side by side, in one process.

Shapes: E members, B batch, T time, P parameters, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lr_gym.config import TrainingConfig
from lr_gym.data.corpora import Corpus
from lr_gym.devices import resolve_device, resolve_precision
from lr_gym.models.language_model import LanguageModel
from lr_gym.random_streams import fold_in, stream_seeds
from lr_gym.trainers.adamw import AdamW, initial_state
from lr_gym.trainers.base import FloatArray, check_chunk
from lr_gym.trainers.batches import sample_starts
from lr_gym.trainers.compilation import compiled_losses, compiled_step, resolve_compile
from lr_gym.trainers.cuda_graphs import Step
from lr_gym.trainers.evaluation import Evaluation
from lr_gym.trainers.loss import PopulationLoss
from lr_gym.trainers.step import TrainingStep

SPLITS = ("train", "val", "test")


class PopulationTrainer:
    """E runs of one model shape on one corpus and one device.

    Members share only the corpus in device memory. A member's loss curve depends only
    on its seed and its learning rates. It is the same in a population of any size (to
    rounding), and repeats bit for bit on a CPU. A member whose loss or gradient is not
    finite has diverged and keeps its weights; the others continue.
    """

    def __init__(self, config: TrainingConfig, corpus: Corpus, size: int = 1) -> None:
        """Prepare the population; every member starts as a run of seed 0.

        Args:
            config: Model, batch, optimizer, evaluation, device and precision.
            corpus: The text, as `lr_gym.load_corpus` returns it.
            size: E, at least 1.

        Raises:
            ValueError: `size` is below 1, a split is too short for `block_size`, or the
                device is unknown or absent.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if len(corpus.train) <= config.block_size:
            raise ValueError(
                f"corpus {corpus.name!r} is too short: its training split has "
                f"{len(corpus.train)} characters and needs more than block_size="
                f"{config.block_size}; pass a longer text or a smaller block_size"
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
        self.compile = resolve_compile(config.compile, self.device, config.architecture)
        self.corpus_facts = corpus.facts()
        self._splits = {
            name: torch.from_numpy(getattr(corpus, name).copy()).to(self.device)
            for name in SPLITS
        }
        dtype = getattr(torch, self.precision)
        self.population_loss = PopulationLoss(config, corpus.vocab_size, dtype)
        self.optimizer = AdamW(
            n_decayed=self.population_loss.n_decayed,
            beta1=config.beta1,
            beta2=config.beta2,
            weight_decay=config.weight_decay,
            grad_clip=config.grad_clip,
        )
        self._step = TrainingStep(config, self.population_loss, self.optimizer)
        self._compiled_step = (
            compiled_step(self._step, self.compile) if self.compile else None
        )
        losses = None  # on a CPU, compiling the evaluation takes longer than it saves
        if self.compile is not None and self.device.type != "cpu":
            losses = compiled_losses(self.population_loss, self._step)
        self._evaluation = Evaluation(
            config, self._splits, self.population_loss, losses
        )
        self._state = self._fresh_state([0] * size)
        self._telemetry = {
            name: np.zeros(size) for name in ("grad_norm", "update_size", "seconds")
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
        """Train each member for its number of iterations; see `Trainer.train`.

        Raises:
            ValueError: A learning rate or a number of iterations is negative or not
                finite, or shapes do not fit.
        """
        counts, rates = check_chunk(iterations, learning_rate, self.size)
        started = time.perf_counter()
        losses = np.full((self.size, int(counts.max(initial=0))), np.nan)
        tokens = self.config.batch_size * self.config.block_size  # of an update
        start = 0
        # Members may have different numbers of updates. Those that still have some
        # train together, in groups that the device takes at once.
        for stop in np.unique(counts[counts > 0]):
            running = np.flatnonzero(counts >= stop)
            groups = list(
                self.population_loss.groups(len(running), tokens, self.device)
            )
            for group in groups:
                members = running[group]
                state = self._select(members)
                losses[members, start:stop] = self._run(
                    state,
                    rates[members, start:stop],
                    members,
                    whole=len(running) == self.size,
                    on_iteration=on_iteration if group is groups[-1] else None,
                )
                self._assign(members, state)
            start = int(stop)
        self._telemetry["seconds"][counts > 0] += time.perf_counter() - started
        finite = np.isfinite(losses)
        total = np.where(finite, losses, 0.0).sum(axis=1)
        return np.where(finite.any(axis=1), total / finite.sum(axis=1).clip(1), np.nan)

    @torch.no_grad()
    def evaluate(
        self,
        split: str = "val",
        *,
        exact: bool = False,
        members: Sequence[int] | None = None,
    ) -> FloatArray:
        """Return the loss on `split`, in nats per character.

        Args:
            split: ``train``, ``val`` or ``test``.
            exact: Predict every character of the split, whatever the configuration.
            members: Indices of members; `None` is all.

        Returns:
            (len(members),), or (E,) for all.

        Raises:
            ValueError: `split` is unknown or too short.
        """
        state = self._select(range(self.size) if members is None else members)
        return self._evaluation(state, split, exact=exact)

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members have diverged, (E,) bool."""
        return np.asarray(self._state["diverged"].cpu())

    def snapshot(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return a copy of the members' state: tensors, as safetensors saves them."""
        return {name: value.clone() for name, value in self._select(members).items()}

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
        for name, value in self._state.items():
            expected = (len(members), *value.shape[1:])
            shape = tuple(state[name].shape) if name in state else None
            if shape != expected:
                raise ValueError(
                    f"state[{name!r}] must have shape {expected}, got {shape}"
                )
        skipped = () if rewind else ("iteration",)
        self._assign(members, {k: v for k, v in state.items() if k not in skipped})

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of all members' state, for `safetensors.torch.save_file`."""
        return self.snapshot(range(self.size))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`; raise ValueError if it does not fit."""
        self.restore(range(self.size), state)

    def telemetry(self, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Return every entry of `Trainer.telemetry`, (E,) each; `names` is ignored.

        ``grad_norm``: mean before clipping over the last chunk. ``update_size``: size
        of the last update, see `lr_gym.trainers.update_size`. ``tokens``: characters
        trained on. ``seconds``: wall time in `train`, shared by members that train
        together. ``learning_rate``: the optimizer's record of its last update.
        """
        per_iteration = self.config.batch_size * self.config.block_size
        tokens = np.asarray(self._state["iteration"].cpu()) * float(per_iteration)
        # A copy: on a CPU the array would share the optimizer's memory.
        learning_rate = self._state["learning_rate"].cpu().numpy().copy()
        host = {name: values.copy() for name, values in self._telemetry.items()}
        return {**host, "tokens": tokens, "learning_rate": learning_rate}

    # ------------------------------------------------------------ beyond the protocol

    @property
    def iteration(self) -> NDArray[np.int64]:
        """Number of iterations each member has spent, (E,)."""
        return np.asarray(self._state["iteration"].cpu())

    def model(self, member: int = 0) -> LanguageModel:
        """Return a copy of one member's model as an ordinary module."""
        return self.population_loss.module(self._state["parameters"][member].clone())

    # -------------------------------------------------------------------- one chunk

    def _run(
        self,
        state: dict[str, Tensor],
        rates: FloatArray,
        members: NDArray[np.int64],
        *,
        whole: bool,
        on_iteration: Callable[[], object] | None,
    ) -> FloatArray:
        """Make n updates of `members`; return their training losses, (E, n).

        Nothing in the loop waits for a GPU: losses are read once, at the end.

        Args:
            state: The members' state, changed in place.
            rates: Learning rates, (E, n).
            members: Indices of the members, (E,).
            whole: Whether the group is part of the whole population. Only then is the
                compiled step used, since other groups come in many sizes.
            on_iteration: Called after every update.
        """
        steps = rates.shape[1]
        compiled = self._compiled_step if whole else None
        step: Step = compiled or self._step
        tokens = self._splits["train"]
        # The axis of updates comes first, so that the strides of one update's inputs do
        # not depend on n: one compiled step serves chunks of any length.
        lrs = torch.from_numpy(rates.T.copy()).to(self.device)  # (n, E)
        iterations = torch.arange(steps, device=self.device)[:, None]
        iterations = iterations + state["iteration"]  # (n, E)
        starts = sample_starts(  # (n, E, B)
            tokens,
            fold_in(state["data_key"], iterations),
            self.config.batch_size,
            self.config.block_size,
        )
        dropout_keys = fold_in(  # (n, E, sites)
            fold_in(state["dropout_key"], iterations)[..., None],
            torch.arange(self.population_loss.dropout_sites, device=self.device),
        )
        losses, norms = [], []
        before = state["parameters"]
        for i in range(steps):
            if i == steps - 1:
                before = state["parameters"].clone()
            loss, norm = step(state, tokens, lrs[i], starts[i], dropout_keys[i])
            losses.append(loss)
            norms.append(norm)
            if on_iteration is not None:
                on_iteration()
        state["iteration"] += steps
        size = self.population_loss.update_size(before, state["parameters"])
        grad_norm = torch.stack(norms, dim=1).nanmean(dim=1)
        # One transfer to the host for everything.
        table = torch.stack([size, grad_norm, *losses]).double().cpu().numpy()
        self._telemetry["update_size"][members] = table[0]
        self._telemetry["grad_norm"][members] = table[1]
        return np.ascontiguousarray(table[2:].T)

    # ----------------------------------------------------------- the population's state

    def _fresh_state(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Return the state of new runs, one per seed."""
        weights: dict[int, Tensor] = {}
        keys = []
        for seed in seeds:
            init_seed, data_seed, dropout_seed = stream_seeds(seed, 3)
            keys.append((data_seed, dropout_seed))
            if seed not in weights:
                weights[seed] = self.population_loss.initial_weights(init_seed)
        parameters = torch.stack([weights[seed] for seed in seeds])  # (E, P)
        state = initial_state(parameters.to(self.device))
        count = len(seeds)
        key_table = torch.tensor(keys, dtype=torch.int64, device=self.device)
        state["data_key"] = key_table[:, 0].clone()
        state["dropout_key"] = key_table[:, 1].clone()
        state["iteration"] = torch.zeros(count, dtype=torch.int64, device=self.device)
        state["diverged"] = torch.zeros(count, dtype=torch.bool, device=self.device)
        return state

    def _select(self, members: ArrayLike) -> dict[str, Tensor]:
        """Return the state of `members`: views if they are consecutive, else copies."""
        indices = np.asarray(members, dtype=np.int64)
        if len(indices) and (np.diff(indices) == 1).all():
            selection: slice | Tensor = slice(int(indices[0]), int(indices[-1]) + 1)
        else:
            selection = torch.from_numpy(indices).to(self.device)
        return {name: value[selection] for name, value in self._state.items()}

    def _assign(self, members: ArrayLike, state: Mapping[str, Tensor]) -> None:
        """Write the state of `members`; the inverse of `_select`."""
        copies = {
            name: value
            for name, value in state.items()
            if not _shares_memory(value, self._state[name])
        }
        if copies:
            indices = torch.from_numpy(np.asarray(members, dtype=np.int64))
            indices = indices.to(self.device)
        for name, value in copies.items():
            self._state[name][indices] = value.to(self.device)


def _shares_memory(view: Tensor, whole: Tensor) -> bool:
    """Return whether `view` is a view from `_select`, already written in place."""
    return view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
