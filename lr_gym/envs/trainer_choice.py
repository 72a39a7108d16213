"""What `trainer=` of `gym.make` means: real training, a fitted law, or one's own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lr_gym.config import TrainingConfig
from lr_gym.surrogate.law import LossLaw
from lr_gym.surrogate.law_files import load_law, packaged_law
from lr_gym.trainers.base import Trainer
from lr_gym.validation import check_integer, check_keywords, field_names

REAL, SURROGATE = "real", "surrogate"
# What an episode over somebody else's training still has to know.
EPISODE_FIELDS = ("max_iters", "eval_interval", "warmup_iters", "learning_rate")
# What a law does not depend on: the device, and what the law takes as its input.
_FREE_FIELDS = (
    *EPISODE_FIELDS,
    "test_fraction",
    "eval_iters",
    "device",
    "precision",
    "compile",
)
_METHODS = ("reset", "train", "evaluate", "diverged", "snapshot", "restore")

LawChoice = str | os.PathLike[str] | LossLaw
TrainerChoice = LawChoice | Trainer | Mapping[str, LawChoice]


def find_law(trainer: object, scale: str, corpus: str | None) -> LossLaw | None:
    """Return the law that `trainer` names, or `None` where it names none.

    Args:
        trainer: ``surrogate``, the path of a law's JSON file, or a law.
        scale: The scale asked for; ``auto`` is ``mini`` for ``surrogate``, else the
            law's own.
        corpus: The corpus asked for; `None` is the law's own, ``markov`` for
            ``surrogate``.

    Raises:
        ValueError: There is no such law, or it is one of another scale or corpus.
        FileNotFoundError: There is no such file.
    """
    if trainer == SURROGATE:
        return packaged_law(corpus or "markov", "mini" if scale == "auto" else scale)
    if isinstance(trainer, str | os.PathLike) and _is_path(trainer):
        law = load_law(trainer)
    elif isinstance(trainer, LossLaw):
        law = trainer
    else:
        return None
    for name, asked, own in (
        ("scale", None if scale == "auto" else scale, law.training.scale),
        ("corpus", corpus, law.training.corpus),
    ):
        if asked not in (None, own):
            raise ValueError(f"the law was fitted at {name}={own!r}, got {asked!r}")
    return law


def family_laws(
    trainer: object, scale: str, corpora: Sequence[str]
) -> dict[str, LossLaw]:
    """Return the laws of a family's corpora, by name.

    Args:
        trainer: ``surrogate``, or a mapping from each corpus to a law or its file.
        scale: The scale that the laws have to be of.
        corpora: The family's.

    Raises:
        TypeError: `trainer` maps a corpus to something else.
        ValueError: `trainer` is something else, there is no law for a corpus, or one of
            another scale or corpus.
        FileNotFoundError: A law's file is absent.
    """
    if trainer != SURROGATE and not isinstance(trainer, Mapping):
        raise ValueError(
            f"a family is of trainer={REAL!r}, {SURROGATE!r}, or a mapping from each "
            f"corpus to its law; got {trainer!r}"
        )
    laws = {}
    for corpus in corpora:
        choice = trainer
        if isinstance(trainer, Mapping):
            if corpus not in trainer:
                raise ValueError(
                    f"trainer has no law for corpus {corpus!r}, but for "
                    f"{', '.join(map(str, trainer)) or 'none'}"
                )
            choice = trainer[corpus]
        law = find_law(choice, scale, corpus)
        if law is None:
            raise TypeError(
                f"trainer[{corpus!r}] must be a LossLaw or a .json file, got {choice!r}"
            )
        laws[corpus] = law
    return laws


def check_law_covers(law: LossLaw, training: TrainingConfig) -> None:
    """Raise ValueError unless the law describes such runs."""
    for name in field_names(TrainingConfig):
        asked, own = getattr(training, name), getattr(law.training, name)
        if name not in _FREE_FIELDS and asked != own:
            raise ValueError(
                f"the law was fitted at {name}={own!r}, got {asked!r}: fit a law of "
                "its own with python -m benchmarks.surrogate.fitting, or leave it"
            )


def check_trainer(trainer: object, size: int, settings: Mapping[str, Any]) -> None:
    """Check a trainer of the caller's own.

    Args:
        trainer: Has the methods of `Trainer`.
        size: Members that the environment needs.
        settings: Keywords of `gym.make` but those of the decision process: with a
            trainer of one's own, only those that describe the episode.

    Raises:
        TypeError: It lacks a method or `size`, or a setting is the trainer's own.
        ValueError: Its size is another.
    """
    if isinstance(trainer, str | os.PathLike):
        raise ValueError(
            f"trainer must be {REAL!r}, {SURROGATE!r}, the path of a law's .json file, "
            f"a LossLaw, or an object with the methods of lr_gym.Trainer; got "
            f"{os.fspath(trainer)!r}"
        )
    lacking = [
        name
        for name in (*_METHODS, "telemetry")
        if not callable(getattr(trainer, name, None))
    ]
    if lacking or not hasattr(trainer, "size"):
        raise TypeError(
            f"trainer must have the methods of lr_gym.Trainer and `size`; "
            f"{type(trainer).__name__} lacks {', '.join(lacking) or 'size'}"
        )
    try:
        inspect.signature(trainer.telemetry).bind(("tokens",))  # type: ignore[attr-defined]
    except TypeError as error:
        raise TypeError(
            f"trainer.telemetry must take the names that are asked for: {error}"
        ) from error
    check_integer("trainer.size", trainer.size, 1)
    if trainer.size != size:
        raise ValueError(
            f"trainer.size must be the number of environments, {size}, got "
            f"{trainer.size}"
        )
    check_keywords("with a trainer of its own, LRTuningEnv", settings, EPISODE_FIELDS)


def _is_path(trainer: str | os.PathLike[str]) -> bool:
    return os.fspath(trainer).endswith(".json")
