"""The keyword `trainer=` of `gym.make`: real training, a law, or a user's trainer."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lr_gym.config import TrainingConfig
from lr_gym.mdp.config import MDPConfig
from lr_gym.surrogate.law import LossLaw
from lr_gym.surrogate.law_files import load_law, packaged_law
from lr_gym.trainers.base import Trainer
from lr_gym.validation import check_integer, check_keywords, field_names

REAL, SURROGATE = "real", "surrogate"
# The fields of `TrainingConfig` that describe an episode over a user's trainer.
EPISODE_FIELDS = ("max_iters", "eval_interval", "warmup_iters", "learning_rate")
# Fields of `TrainingConfig` that may differ from those of the law's runs.
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
    """Return the law that `trainer` names, or `None` if it names none.

    Args:
        trainer: ``surrogate``, the path of a law's JSON file, or a law.
        scale: The requested scale; ``auto`` is ``mini`` for ``surrogate``, else the
            scale of the law.
        corpus: The requested corpus; `None` is ``markov`` for ``surrogate``, else the
            corpus of the law.

    Raises:
        ValueError: There is no such law, or it has another scale or corpus.
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
    for name, requested, fitted in (
        ("scale", None if scale == "auto" else scale, law.training.scale),
        ("corpus", corpus, law.training.corpus),
    ):
        if requested not in (None, fitted):
            raise ValueError(
                f"the law was fitted at {name}={fitted!r}, got {requested!r}"
            )
    return law


def family_laws(
    trainer: object, scale: str, corpora: Sequence[str]
) -> dict[str, LossLaw]:
    """Return the laws of a family's corpora, by name.

    Args:
        trainer: ``surrogate``, or a mapping from each corpus to a law or its file.
        scale: The scale of the laws.
        corpora: The corpora of the family.

    Raises:
        TypeError: `trainer` maps a corpus to an object that is not a law.
        ValueError: `trainer` is another object, there is no law for a corpus, or a law
            has another scale or corpus.
        FileNotFoundError: The file of a law is absent.
    """
    if trainer != SURROGATE and not isinstance(trainer, Mapping):
        raise ValueError(
            f"with a family, trainer must be {REAL!r}, {SURROGATE!r}, or a mapping "
            f"from each corpus to its law; got {trainer!r}"
        )
    laws = {}
    for corpus in corpora:
        choice = trainer
        if isinstance(trainer, Mapping):
            if corpus not in trainer:
                raise ValueError(
                    f"trainer has no law for corpus {corpus!r}; it has laws for "
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
    """Raise ValueError unless the law was fitted to runs of this configuration."""
    for name in field_names(TrainingConfig):
        requested, fitted = getattr(training, name), getattr(law.training, name)
        if name not in _FREE_FIELDS and requested != fitted:
            raise ValueError(
                f"the law was fitted at {name}={fitted!r}, got {requested!r}: leave "
                f"{name} out, or fit another law with "
                "python -m benchmarks.surrogate.fitting"
            )


def check_trainer(trainer: object, size: int, settings: Mapping[str, Any]) -> None:
    """Check a user's trainer.

    Args:
        trainer: Should have the methods of `Trainer`.
        size: Number of environments.
        settings: Keywords of `gym.make`. Only `EPISODE_FIELDS` and the fields of
            `MDPConfig` are allowed.

    Raises:
        TypeError: The trainer lacks a method or `size`, or a keyword is not allowed.
        ValueError: Its size is not `size`.
    """
    if isinstance(trainer, str | os.PathLike):
        raise ValueError(
            f"trainer must be {REAL!r}, {SURROGATE!r}, the path of a law's .json file, "
            f"a LossLaw, or an object with the methods of lr_gym.Trainer; got "
            f"{os.fspath(trainer)!r}"
        )
    missing = [
        name
        for name in (*_METHODS, "telemetry")
        if not callable(getattr(trainer, name, None))
    ]
    if missing or not hasattr(trainer, "size"):
        raise TypeError(
            f"trainer must have the methods of lr_gym.Trainer and `size`; "
            f"{type(trainer).__name__} lacks {', '.join(missing) or 'size'}"
        )
    try:
        inspect.signature(trainer.telemetry).bind(("tokens",))  # type: ignore[attr-defined]
    except TypeError as error:
        raise TypeError(
            f"trainer.telemetry must take the requested names: {error}"
        ) from error
    check_integer("trainer.size", trainer.size, 1)
    if trainer.size != size:
        raise ValueError(
            f"trainer.size must be the number of environments, {size}, got "
            f"{trainer.size}"
        )
    allowed = EPISODE_FIELDS + field_names(MDPConfig)
    check_keywords("LRTuningEnv() with your own trainer", settings, allowed)


def _is_path(trainer: str | os.PathLike[str]) -> bool:
    return os.fspath(trainer).endswith(".json")
