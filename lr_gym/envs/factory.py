"""From the keywords of `gym.make` to episodes: real, simulated, or a user's trainer."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch

from lr_gym.config import TrainingConfig, preset
from lr_gym.data.corpora import Corpus, load_corpus
from lr_gym.devices import check_scale, resolve_device, resolve_scale
from lr_gym.envs.episodes import EpisodeBatch
from lr_gym.envs.trainer_choice import (
    REAL,
    TrainerChoice,
    check_law_covers,
    check_trainer,
    family_laws,
    find_law,
    is_named,
    warn_of_longer_runs,
)
from lr_gym.mdp.config import MDPConfig
from lr_gym.mdp.instances import InstanceFamily
from lr_gym.surrogate.law import LossLaw
from lr_gym.surrogate.trainer import SurrogateTrainer
from lr_gym.trainers.base import Trainer
from lr_gym.trainers.mixed import MixedTrainer, family_population
from lr_gym.trainers.population import PopulationTrainer
from lr_gym.validation import check_keywords, field_names

_IMPORTING_PROCESS = os.getpid()  # another process at run time was forked from it


def read_settings(
    scale: str, corpus: str, settings: Mapping[str, Any]
) -> tuple[TrainingConfig, MDPConfig, Corpus]:
    """Return the configurations and the corpus for keywords of `gym.make`.

    Raises the errors of `build_episodes`.
    """
    training, config = _read_configs(scale, corpus, settings)
    text = load_corpus(corpus, test_fraction=training.test_fraction)
    return training, config, text


def check_settings(constructor: type, settings: Mapping[str, Any]) -> None:
    """Raise TypeError for a keyword that an environment does not take.

    Args:
        constructor: The environment's class; its other keywords are in the message.
        settings: Should be fields of `TrainingConfig` and `MDPConfig`.
    """
    named = list(inspect.signature(constructor).parameters)
    named.remove("settings")
    fields = (*field_names(TrainingConfig), *field_names(MDPConfig))
    allowed = tuple(dict.fromkeys((*named, *fields)))
    check_keywords(f"{constructor.__name__}()", settings, allowed)


def _read_configs(
    scale: str, corpus: str, settings: Mapping[str, Any]
) -> tuple[TrainingConfig, MDPConfig]:
    training_fields, mdp_fields = field_names(TrainingConfig), field_names(MDPConfig)
    check_keywords("LRTuningEnv()", settings, training_fields + mdp_fields)
    training = preset(
        scale, corpus, **{k: v for k, v in settings.items() if k in training_fields}
    )
    return training, MDPConfig(**{k: v for k, v in settings.items() if k in mdp_fields})


def build_episodes(
    size: int,
    *,
    scale: str,
    corpus: str | None,
    trainer: TrainerChoice = REAL,
    family: Mapping[str, Any] | None = None,
    stacklevel: int = 2,
    **settings: Any,
) -> EpisodeBatch:
    """Build `size` episodes from the keywords of `gym.make`.

    Args:
        size: E, the number of members.
        scale: ``auto`` or a preset.
        corpus: A built-in corpus or the path of a text file; `None` is ``markov``, or
            with a law the corpus of the law.
        trainer: ``real``, ``surrogate``, the path of a law's JSON file, a `LossLaw`, an
            object with the methods of `Trainer` and E members, or with a family a
            mapping from each corpus to its law or the law's file.
        family: Fields of `InstanceFamily`. Other fields have one value, from the other
            keywords.
        stacklevel: The `stacklevel` of warnings.
        **settings: Fields of `TrainingConfig` and `MDPConfig`.

    Raises:
        TypeError: A keyword is unknown, or a value has the wrong type.
        ValueError: A value is out of range, or there is no law for the task.
        FileNotFoundError: The file of the corpus or of the law is absent.
    """
    check_scale(scale)
    if corpus is None:
        named = "markov"
    elif isinstance(corpus, str):
        named = corpus
    else:
        raise TypeError(f"corpus must be None or a string, got {corpus!r}")
    if not is_named(trainer, REAL):
        if family is None:
            return _build_without_text(size, scale, corpus, trainer, settings)
        scale = "mini" if scale == "auto" else scale
        training, config = _read_configs(scale, named, settings)
        instance_family = InstanceFamily.from_config(training, family)
        laws = family_laws(trainer, training.scale, instance_family.corpora)
        return _simulated_family(size, training, config, instance_family, laws)
    scale = resolve_scale(scale, settings.get("device", "auto"), stacklevel + 1)
    training, config, text = read_settings(scale, named, settings)
    if resolve_device(training.device).type == "meta":
        raise ValueError("device must hold numbers, got 'meta', which has only shapes")
    with _one_torch_thread():
        if family is not None:
            instance_family = InstanceFamily.from_config(training, family)
            mixed, entropy_rates = family_population(instance_family, training, size)
            return EpisodeBatch(mixed, training, config, entropy_rates, instance_family)
        population = PopulationTrainer(training, text, size)
        return EpisodeBatch(population, training, config, text.entropy_rate)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keep torch to the calling thread within the context; a forked process for good.

    A process forked after torch has started its threads has none of them, and hangs at
    its first parallel operation. Gymnasium's `AsyncVectorEnv` builds an environment
    before it forks.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        if os.getpid() == _IMPORTING_PROCESS:
            torch.set_num_threads(threads)


def _simulated_family(
    size: int,
    training: TrainingConfig,
    config: MDPConfig,
    family: InstanceFamily,
    laws: Mapping[str, LossLaw],
) -> EpisodeBatch:
    """Build simulated episodes of a family, from the law of each corpus."""
    for instance_config in family.training_configs(training):
        check_law_covers(laws[instance_config.corpus], instance_config)

    def make(instance_config: TrainingConfig) -> Trainer:
        law = laws[instance_config.corpus]
        check_law_covers(law, instance_config)  # `reset` can choose another instance
        return SurrogateTrainer(law, size)

    first = family.instance().training_config(training)
    population = MixedTrainer(first, make, size)
    entropy_rates = {name: law.entropy_rate for name, law in laws.items()}
    episodes = EpisodeBatch(population, training, config, entropy_rates, family)
    for law in laws.values():
        warn_of_longer_runs(law, max(family.max_iters))
    return episodes


def _build_without_text(
    size: int,
    scale: str,
    corpus: str | None,
    trainer: TrainerChoice,
    settings: Mapping[str, Any],
) -> EpisodeBatch:
    """Build episodes over a law, or over a user's trainer."""
    law = find_law(trainer, scale, corpus)
    if law is not None:
        settings = {"learning_rate": law.training.learning_rate, **settings}
        training, config = _read_configs(
            law.training.scale, law.training.corpus, settings
        )
        check_law_covers(law, training)
        population = SurrogateTrainer(law, size)
        episodes = EpisodeBatch(population, training, config, law.entropy_rate)
        warn_of_longer_runs(law, training.max_iters)
        return episodes
    check_trainer(trainer, size, settings)
    if scale != "auto":
        raise ValueError(f"scale is for lr-gym's own training, got scale={scale!r}")
    training, config = _read_configs("mini", corpus or "own", settings)
    return EpisodeBatch(cast(Trainer, trainer), training, config)
