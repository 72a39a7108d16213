"""The settings of one training run: `TrainingConfig` and its presets.

`paper` is the paper's model and training length per corpus, `mini` the CPU default,
`tiny` is for tests and for grids of thousands of runs. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

SCALES = ("paper", "mini", "tiny")
ARCHITECTURES = ("gpt", "lstm", "conv")
PRECISIONS = ("auto", "float32", "bfloat16")
EVALUATIONS = ("fixed", "paper")
COMPILES = ("auto", "off", "default", "graph")
_COUNTS = (  # the fields that are integers from 1 up
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "batch_size",
    "max_iters",
    "eval_interval",
    "eval_iters",
)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run of a character-level model, as it is saved with results.

    Defaults are those of `mini`. Every field is checked on construction.

    Attributes:
        corpus: ``markov``, ``shakespeare``, ``enwik8``, ``text8`` or a file's path.
        test_fraction: Share of the text held out as test split, in [0, 0.5]; `None` is
            the corpus' own default (0.05).
        scale: The preset the settings started from; a label kept in every result.
        architecture: ``gpt``, the paper's transformer; ``lstm``, recurrent; or
            ``conv``, causal convolutions.
        n_layer: Transformer blocks, layers of LSTM, or blocks of convolution.
        n_head: Attention heads per block of a ``gpt``; divides `n_embd`. The other
            architectures have none, and leave it unread.
        n_embd: Width of the residual stream.
        block_size: Context length, in characters.
        dropout: Dropout probability, in [0, 1).
        bias: Whether linear layers and layer norms have biases.
        batch_size: Sequences per iteration.
        max_iters: Optimizer updates per run: the training budget.
        eval_interval: Updates between evaluations, and so between decisions.
        warmup_iters: Updates of linear warm-up.
        learning_rate: Initial learning rate.
        beta1: AdamW's decay of the first moment, in [0, 1).
        beta2: AdamW's decay of the second moment, in [0, 1).
        weight_decay: AdamW's decoupled weight decay, on matrices only.
        grad_clip: Largest global gradient norm; 0 does not clip.
        evaluation: ``fixed`` is one deterministic pass over the validation split or a
            fixed part of it; ``paper`` is the mean over `eval_iters` random batches.
        eval_tokens: Most characters a ``fixed`` evaluation predicts, evenly spread over
            the split; `None` predicts the whole split.
        eval_iters: Random batches per split of a ``paper`` evaluation.
        device: A torch device, or ``auto``: CUDA where there is one, else the CPU.
        precision: ``float32``, ``bfloat16`` (compute only; weights and optimizer stay
            in float32) or ``auto``: bfloat16 where the hardware has it.
        compile: ``off``; ``default``, by `torch.compile`; ``graph``, that in one CUDA
            graph, on CUDA alone; or ``auto``: ``default`` on CUDA, where it pays back.
            An ``lstm`` takes ``off`` and ``auto``, which is the same for it.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is out of range; the message names field, value and range.
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
        """Check every field, then the rules that join two of them."""
        self._check_fields()
        if self.architecture == "gpt" and self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, got n_embd={self.n_embd} and "
                f"n_head={self.n_head}"
            )
        if self.architecture == "lstm" and self.compile not in ("auto", "off"):
            raise ValueError(
                "compile must be auto or off with architecture='lstm', whose kernel is "
                f"compiled already; got {self.compile!r}"
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
            check_integer(name, getattr(self, name), 1)
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
    """Return the preset `scale` for `corpus`, with single fields replaced.

    The paper's settings for enwik8 and text8 differ from those for Shakespeare (batch
    size, length, interval, warm-up, initial LR); other corpora use Shakespeare's.

    Args:
        scale: ``paper``, ``mini`` or ``tiny``.
        corpus: A built-in corpus or a text file's path.
        **overrides: Fields of `TrainingConfig`.

    Raises:
        TypeError: An override is no field of `TrainingConfig`.
        ValueError: `scale` is unknown, or a field is out of range.

    >>> preset("paper", "enwik8").max_iters
    100000
    >>> preset("tiny", n_layer=1).n_layer
    1
    """
    check_choice("scale", scale, SCALES)
    check_keywords("preset", overrides, field_names(TrainingConfig))
    settings: dict[str, Any] = {"scale": scale, "corpus": corpus}
    if scale == "tiny":
        settings |= _TINY
    elif scale == "paper":
        wikipedia = corpus in ("enwik8", "text8")
        settings |= _PAPER_MODEL
        settings |= _PAPER_WIKIPEDIA if wikipedia else _PAPER_SHAKESPEARE
    return TrainingConfig(**(settings | overrides))


# ------------------------------------------------------------------- argument checks


def field_names(config_class: type) -> tuple[str, ...]:
    """Return the field names of a dataclass, in order."""
    return tuple(field.name for field in dataclasses.fields(config_class))


def check_keywords(
    caller: str, given: Collection[str], allowed: Collection[str]
) -> None:
    """Raise TypeError, with the nearest allowed name, for an unknown keyword."""
    for name in given:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"{caller} got an unknown keyword {name!r}{hint} Allowed: "
                f"{', '.join(allowed)}"
            )


def check_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{name} must be one of {', '.join(allowed)}; got {value!r}{hint}"
        )


def check_boolean(name: str, value: object) -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise unless `value` is an integer in [`low`, `high`]."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # that is the check
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if number < low or (high is not None and number > high):
        rule = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {rule}, got {value!r}")


def check_real(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise unless `value` is a finite real number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    too_low = number <= low if low_open else number < low
    too_high = number >= high if high_open else number > high
    if not math.isfinite(number) or too_low or too_high:
        bounds = f"{'(' if low_open else '['}{low:g}, {high:g}"
        closing = ")" if high_open or math.isinf(high) else "]"
        raise ValueError(
            f"{name} must be finite and in {bounds}{closing}, got {value!r}"
        )
