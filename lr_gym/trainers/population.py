"""`PopulationTrainer`: E real training runs side by side, in one process.

Shapes: E members, B batch, T time, P parameters, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

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
from lr_gym.trainers.batches import IGNORE, cut_windows, sample_starts, windows_at
from lr_gym.trainers.compilation import compiled_losses, compiled_step, resolve_compile
from lr_gym.trainers.cuda_graphs import Step
from lr_gym.trainers.loss import PopulationLoss
from lr_gym.trainers.step import TrainingStep
from lr_gym.validation import check_choice

SPLITS = ("train", "val", "test")


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
        self.compile = resolve_compile(config.compile, self.device, config.architecture)
        self.corpus_facts = corpus.facts()
        self._splits = {
            name: torch.from_numpy(getattr(corpus, name).copy()).to(self.device)
            for name in SPLITS
        }
        self._cut: dict[tuple[str, bool], tuple[Tensor, int]] = {}
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
        # On a CPU an evaluation takes too little time to pay for its compilation.
        self._losses = (
            None
            if self.compile is None or self.device.type == "cpu"
            else compiled_losses(self.population_loss, self._step)
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
        """Train each member for its number of updates; see `Trainer.train`.

        Raises:
            ValueError: A learning rate or a number of iterations is negative or not
                finite, or shapes do not fit.
        """
        counts, rates = check_chunk(iterations, learning_rate, self.size)
        started = time.perf_counter()
        losses = np.full((self.size, int(counts.max(initial=0))), np.nan)
        done = 0
        # Members may want different numbers of updates: all that still run go together,
        # in groups that the device takes at once.
        for stop in np.unique(counts[counts > 0]):
            running = np.flatnonzero(counts >= stop)
            groups = list(self._groups(len(running), self.config.batch_size))
            for part in groups:
                rows = running[part]
                state = self._select(rows)
                losses[rows, done:stop] = self._run(
                    state,
                    rates[rows, done:stop],
                    rows,
                    whole=len(running) == self.size,
                    on_iteration=on_iteration if part is groups[-1] else None,
                )
                self._assign(rows, state)
            done = int(stop)
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
            members: Whose loss, (len(members),); `None` is everybody's, (E,).

        Raises:
            ValueError: `split` is unknown or empty.
        """
        check_choice("split", split, SPLITS)
        if len(self._splits[split]) < 2:
            raise ValueError(f"split {split!r} is empty: test_fraction is 0")
        state = self._select(range(self.size) if members is None else members)
        if self.config.evaluation == "paper" and not exact:
            return self._random_batch_loss(split, state)
        windows, predictions = self._evaluation_windows(split, exact)  # (N, T + 1)
        total = self.population_loss.total_loss(
            state["parameters"], windows, self._losses
        )
        return np.asarray(total.cpu() / predictions)

    def diverged(self) -> NDArray[np.bool_]:
        """Return which members are frozen, (E,) bool."""
        return np.asarray(self._state["diverged"].cpu())

    def snapshot(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Copy the rows of `members`: plain tensors, ready for safetensors."""
        return {name: rows.clone() for name, rows in self._select(members).items()}

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
        """Updates spent by each member, (E,)."""
        return np.asarray(self._state["iteration"].cpu())

    def model(self, member: int = 0) -> LanguageModel:
        """Return a copy of one member as an ordinary module, ready to generate."""
        return self.population_loss.module(self._state["parameters"][member].clone())

    # -------------------------------------------------------------------- one chunk

    def _run(
        self,
        state: dict[str, Tensor],
        rates: FloatArray,
        rows: NDArray[np.int64],
        *,
        whole: bool,
        on_iteration: Callable[[], object] | None,
    ) -> FloatArray:
        """Make rates.shape[1] updates of the members in `state`; return (E, n) losses.

        Nothing in the loop waits for a GPU: losses are read once, at the end. Only
        groups of the whole population are compiled: others come in any size.
        """
        steps = rates.shape[1]
        compiled = self._compiled_step if whole else None
        step: Step = compiled or self._step
        tokens = self._splits["train"]
        # Updates first, in a fresh tensor: the strides of what one update takes do not
        # depend on their number, and one compiled update serves chunks of any length.
        schedule = torch.from_numpy(rates.T.copy()).to(self.device)  # (n, E)
        clock = torch.arange(steps, device=self.device)[:, None] + state["iteration"]
        starts = sample_starts(  # (n, E, B)
            tokens,
            fold_in(state["data_key"], clock),
            self.config.batch_size,
            self.config.block_size,
        )
        dropout_keys = fold_in(  # (n, E, sites)
            fold_in(state["dropout_key"], clock)[..., None],
            torch.arange(self.population_loss.dropout_sites, device=self.device),
        )
        losses, norms = [], []
        before = state["parameters"]
        for i in range(steps):
            if i == steps - 1:
                before = state["parameters"].clone()
            loss, norm = step(state, tokens, schedule[i], starts[i], dropout_keys[i])
            losses.append(loss)
            norms.append(norm)
            if on_iteration is not None:
                on_iteration()
        state["iteration"] += steps
        size = self.population_loss.update_size(before, state["parameters"])
        grad_norm = torch.stack(norms, dim=1).nanmean(dim=1)
        # All that the host wants to know, in one transfer.
        table = torch.stack([size, grad_norm, *losses]).double().cpu().numpy()
        self._telemetry["update_size"][rows], self._telemetry["grad_norm"][rows] = (
            table[:2]
        )
        return np.ascontiguousarray(table[2:].T)

    def _evaluation_windows(self, split: str, exact: bool) -> tuple[Tensor, int]:
        """Return the windows of a fixed evaluation and their predictions; cut once."""
        if (split, exact) not in self._cut:
            limit = None if exact else self.config.eval_tokens
            windows = cut_windows(self._splits[split], self.config.block_size, limit)
            predictions = int((windows[:, 1:] != IGNORE).sum())
            self._cut[split, exact] = windows, predictions
        return self._cut[split, exact]

    def _random_batch_loss(self, split: str, state: dict[str, Tensor]) -> FloatArray:
        """Mean loss over `eval_iters` random batches: the paper's estimate, (E,).

        The batches come from a stream of their own, so training does not notice.
        """
        config, tokens = self.config, self._splits[split]
        if len(tokens) <= config.block_size:
            raise ValueError(
                f"evaluation='paper' needs a {split} split longer than block_size="
                f"{config.block_size}, got {len(tokens)} characters"
            )
        key = fold_in(state["data_key"] + 1, state["iteration"])  # (E,)
        total = torch.zeros(len(key), dtype=torch.float64, device=self.device)
        for batch in range(config.eval_iters):
            starts = sample_starts(
                tokens, fold_in(key, batch), config.batch_size, config.block_size
            )
            windows = windows_at(tokens, starts, config.block_size)
            for part in self._groups(len(key), config.batch_size):
                losses = self.population_loss.losses(
                    state["parameters"][part], windows[part], "mean"
                )
                total[part] += losses.double()
        return np.asarray(total.cpu() / config.eval_iters)

    # ----------------------------------------------------------- rows of the population

    def _fresh_state(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        drawn: dict[int, Tensor] = {}
        keys = []
        for seed in seeds:
            init_seed, data_seed, dropout_seed = stream_seeds(seed, 3)
            keys.append((data_seed, dropout_seed))
            if seed not in drawn:
                drawn[seed] = self.population_loss.initial_weights(init_seed)
        rows = [drawn[seed] for seed in seeds]
        state = initial_state(torch.stack(rows).to(self.device))
        count = len(seeds)
        key_table = torch.tensor(keys, dtype=torch.int64, device=self.device)
        state["data_key"] = key_table[:, 0].clone()
        state["dropout_key"] = key_table[:, 1].clone()
        state["iteration"] = torch.zeros(count, dtype=torch.int64, device=self.device)
        state["diverged"] = torch.zeros(count, dtype=torch.bool, device=self.device)
        return state

    def _groups(self, members: int, windows: int) -> Iterator[slice]:
        """Cut `members` into groups that one pass over `windows` each may hold."""
        tokens = windows * self.config.block_size
        return self.population_loss.groups(members, tokens, self.device)

    def _select(self, members: ArrayLike) -> dict[str, Tensor]:
        """Return the rows of `members`: views of neighbours, else copies."""
        rows = np.asarray(members, dtype=np.int64)
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            chosen: slice | Tensor = slice(int(rows[0]), int(rows[0]) + len(rows))
        else:
            chosen = torch.from_numpy(rows).to(self.device)
        return {name: value[chosen] for name, value in self._state.items()}

    def _assign(self, members: ArrayLike, state: Mapping[str, Tensor]) -> None:
        """Write the rows of `members`; the inverse of `_select`."""
        owned = {
            name: value
            for name, value in state.items()
            if not _shares_memory(value, self._state[name])
        }
        if owned:
            rows = torch.from_numpy(np.asarray(members, dtype=np.int64))
            rows = rows.to(self.device)
        for name, value in owned.items():
            self._state[name][rows] = value.to(self.device)


def _shares_memory(view: Tensor, whole: Tensor) -> bool:
    """Whether `view` is one of `_select`'s views, which need no writing back."""
    return view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
