"""The settings of one training run: `TrainingConfig` and its presets.

`paper` has the paper's model and training length for each corpus. `mini` is the default
on a CPU. `tiny` is for tests and grids of thousands of runs. This module does not
import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lr_gym.validation import (
    MAX_INTEGER,
    check_boolean,
    check_choice,
    check_count,
    check_integer,
    check_keywords,
    check_real,
    field_names,
    make_numbers_plain,
)

SCALES = ("paper", "mini", "tiny")
ARCHITECTURES = ("gpt", "lstm", "conv")
PRECISIONS = ("auto", "float32", "bfloat16")
EVALUATIONS = ("fixed", "paper")
COMPILES = ("auto", "off", "default", "graph")
_COUNTS = (  # fields that must be integers of at least 1
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "batch_size",
    "max_iters",
    "eval_interval",
    "eval_iters",
)
# Chosen here, far above the paper's values: what is larger would only fill memory.
_LIMITS = {"n_layer": 1_000, "n_embd": 65_536, "max_iters": 10**7}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of one training run of a character-level model.

    Results store them. The defaults are those of `mini`. Construction checks every
    field.

    Attributes:
        corpus: ``markov``, ``shakespeare``, ``enwik8``, ``text8`` or a file's path.
        test_fraction: Share of the text in the test split, in [0, 0.5]; `None` is 0.05.
        scale: The preset that the settings started from; every result stores it.
        architecture: ``gpt`` (the paper's transformer), ``lstm`` (recurrent) or
            ``conv`` (causal convolutions).
        n_layer: Transformer blocks, LSTM layers or convolution blocks; at most 1,000.
        n_head: Attention heads per block of a ``gpt``; divides `n_embd`. The other
            architectures ignore it.
        n_embd: Width of the residual stream, at most 65,536.
        block_size: Context length, in characters.
        dropout: Dropout probability, in [0, 1).
        bias: Whether linear layers and layer norms have biases.
        batch_size: Sequences per iteration.
        max_iters: Iterations per run, the training budget; at most 10 million.
        eval_interval: Iterations between evaluations; the agent decides at each.
        warmup_iters: Iterations of linear warm-up.
        learning_rate: Initial learning rate.
        beta1: AdamW's decay of the first moment, in [0, 1).
        beta2: AdamW's decay of the second moment, in [0, 1).
        weight_decay: AdamW's decoupled weight decay, on matrices only.
        grad_clip: Largest global gradient norm; 0 does not clip.
        evaluation: ``fixed`` is one deterministic pass over the validation split or a
            fixed part of it; ``paper`` is the mean over `eval_iters` random batches.
        eval_tokens: Most characters that a ``fixed`` evaluation predicts, in whole
            windows of `block_size` spread evenly over the split: one window if this
            is below `block_size`. `None` predicts the whole split.
        eval_iters: Random batches of a ``paper`` evaluation.
        device: A torch device, or ``auto``: CUDA if there is one, else the CPU.
        precision: ``float32``, ``bfloat16`` (compute only; weights and optimizer stay
            in float32) or ``auto``: bfloat16 if the hardware supports it.
        compile: ``off``; ``default`` (`torch.compile`); ``graph`` (`torch.compile` and
            a CUDA graph; CUDA only); or ``auto``. ``auto`` is ``graph`` on CUDA, and
            ``off`` on a CPU or, with a warning, without a compiler. An ``lstm``
            accepts only ``off`` and ``auto``, and is never compiled.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of range.
    """

    corpus: str = "markov"
    test_fraction: float | None = None
    scale: str = "mini"
    architecture: str = "gpt"
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    block_size: int = 64
    dropout: float = 0.0
    bias: bool = False
    batch_size: int = 12
    max_iters: int = 600
    eval_interval: int = 30
    warmup_iters: int = 20
    learning_rate: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    evaluation: str = "fixed"
    eval_tokens: int | None = 32_768
    eval_iters: int = 200
    device: str = "auto"
    precision: str = "auto"
    compile: str = "auto"

    def __post_init__(self) -> None:
        """Check every field, then the rules that involve two fields."""
        self._check_fields()
        make_numbers_plain(self)
        if self.architecture == "gpt" and self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, got n_embd={self.n_embd} and "
                f"n_head={self.n_head}"
            )
        if self.architecture == "lstm" and self.compile not in ("auto", "off"):
            raise ValueError(
                "compile must be auto or off with architecture='lstm', which is never "
                f"compiled; got {self.compile!r}"
            )
        for name in ("eval_interval", "warmup_iters"):
            if getattr(self, name) > self.max_iters:
                raise ValueError(
                    f"{name} must not exceed max_iters, got {name}="
                    f"{getattr(self, name)} and max_iters={self.max_iters}; "
                    f"pass a smaller {name} as well"
                )

    def _check_fields(self) -> None:
        for name in ("corpus", "device"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a string, got {getattr(self, name)!r}")
        check_choice("scale", self.scale, SCALES)
        check_choice("architecture", self.architecture, ARCHITECTURES)
        check_choice("evaluation", self.evaluation, EVALUATIONS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("compile", self.compile, COMPILES)
        check_boolean("bias", self.bias)
        for name in _COUNTS:
            check_size(name, getattr(self, name))
        check_integer("warmup_iters", self.warmup_iters, 0)
        if self.eval_tokens is not None:
            check_integer("eval_tokens", self.eval_tokens, 1)
        if self.test_fraction is not None:
            check_real("test_fraction", self.test_fraction, 0.0, 0.5)
        for name in ("dropout", "beta1", "beta2"):
            check_real(name, getattr(self, name), 0.0, 1.0, high_open=True)
        check_real("learning_rate", self.learning_rate, 0.0, low_open=True)
        for name in ("weight_decay", "grad_clip"):
            check_real(name, getattr(self, name), 0.0)


def check_size(name: str, value: object) -> None:
    """Raise unless `value` is an integer that the field `name` can have."""
    check_count(name, value, _LIMITS.get(name, MAX_INTEGER))


_PAPER_MODEL: dict[str, Any] = {
    "n_layer": 6,
    "n_head": 6,
    "n_embd": 384,
    "block_size": 256,
    "dropout": 0.2,
    "eval_tokens": 1_048_576,
}
_PAPER_SHAKESPEARE: dict[str, Any] = {
    "batch_size": 64,
    "max_iters": 5_000,
    "eval_interval": 250,
    "warmup_iters": 100,
    "learning_rate": 2e-3,
}
_PAPER_WIKIPEDIA: dict[str, Any] = {
    "batch_size": 32,
    "max_iters": 100_000,
    "eval_interval": 1_000,
    "warmup_iters": 200,
    "learning_rate": 1e-3,
}
_TINY: dict[str, Any] = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 64,
    "block_size": 32,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "eval_tokens": 16_384,
}


def preset(scale: str, corpus: str = "markov", **overrides: Any) -> TrainingConfig:
    """Return the preset `scale` for `corpus`, with overrides.

    The paper has different batch sizes, training lengths, intervals, warm-ups and
    initial learning rates for Shakespeare and for enwik8 and text8. Other corpora use
    Shakespeare's.

    Args:
        scale: ``paper``, ``mini`` or ``tiny``.
        corpus: A built-in corpus or a text file's path.
        **overrides: Fields of `TrainingConfig`.

    Raises:
        TypeError: An override is not a field of `TrainingConfig`.
        ValueError: `scale` is unknown, or a field is out of range.

    >>> preset("paper", "enwik8").max_iters
    100000
    >>> preset("tiny", n_layer=1).n_layer
    1
    """
    check_choice("scale", scale, SCALES)
    check_keywords("preset()", overrides, field_names(TrainingConfig))
    settings: dict[str, Any] = {"scale": scale, "corpus": corpus}
    if scale == "tiny":
        settings |= _TINY
    elif scale == "paper":
        wikipedia = corpus in ("enwik8", "text8")
        settings |= _PAPER_MODEL
        settings |= _PAPER_WIKIPEDIA if wikipedia else _PAPER_SHAKESPEARE
    return TrainingConfig(**(settings | overrides))
