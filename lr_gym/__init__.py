"""lr-gym: a Gymnasium environment in which an episode is a training run.

Importing it registers ``LRTuning-{markov,shakespeare,enwik8,text8}-v0``, one per
built-in corpus, and ``LRTuningEnv-v0``, everything by keyword. For clients that pass
only an id: ``LRTuning-{markov,shakespeare,enwik8,text8}-tiny-v0``, and simulated
``LRTuningSim-{markov,shakespeare,text8}-tiny-v0``, with the features that learn.
"""

from __future__ import annotations

from typing import Any as _Any

import gymnasium as _gym

from lr_gym.config import TrainingConfig as TrainingConfig
from lr_gym.config import preset as preset
from lr_gym.controllers import export_policy as export_policy
from lr_gym.controllers import load_controller as load_controller
from lr_gym.data.corpora import CORPUS_NAMES as CORPUS_NAMES
from lr_gym.data.corpora import Corpus as Corpus
from lr_gym.data.corpora import load_corpus as load_corpus
from lr_gym.envs.lr_tuning import LRTuningEnv as LRTuningEnv
from lr_gym.envs.vector import LRTuningVectorEnv as LRTuningVectorEnv
from lr_gym.mdp.config import PAPER_FACTORS as PAPER_FACTORS
from lr_gym.mdp.config import MDPConfig as MDPConfig
from lr_gym.mdp.instances import HELD_OUT as HELD_OUT
from lr_gym.mdp.instances import Instance as Instance
from lr_gym.mdp.instances import InstanceFamily as InstanceFamily
from lr_gym.schedules import SCHEDULES as SCHEDULES
from lr_gym.schedules import schedule_factor as schedule_factor
from lr_gym.surrogate.curve_fitting import fit_curves as fit_curves
from lr_gym.surrogate.curve_fitting import predict_curves as predict_curves
from lr_gym.surrogate.fitting import fit_surrogate as fit_surrogate
from lr_gym.surrogate.law import LossLaw as LossLaw
from lr_gym.surrogate.law_files import load_law as load_law
from lr_gym.surrogate.runs import RecordedRun as RecordedRun
from lr_gym.surrogate.trainer import SurrogateTrainer as SurrogateTrainer
from lr_gym.surrogate.uncertainty import predict_interval as predict_interval
from lr_gym.trainers.base import Trainer as Trainer
from lr_gym.trainers.custom import wrap_training as wrap_training
from lr_gym.trainers.mixed import MixedTrainer as MixedTrainer
from lr_gym.trainers.population import PopulationTrainer as PopulationTrainer

__version__ = "0.1.0"

# Stock agents do not learn from the default features: see docs/agents.md.
_TINY: dict[str, _Any] = {
    "scale": "tiny",
    "features": ["val_loss", "log_learning_rate", "progress"],  # as from JSON
}
_IDS: dict[str, dict[str, _Any]] = {
    "LRTuningEnv-v0": {},
    **{f"LRTuning-{name}-v0": {"corpus": name} for name in CORPUS_NAMES},
    **{f"LRTuning-{name}-tiny-v0": {"corpus": name, **_TINY} for name in CORPUS_NAMES},
    **{
        f"LRTuningSim-{name}-tiny-v0": {
            "corpus": name,
            "trainer": "surrogate",
            **_TINY,
        }
        for name in ("markov", "shakespeare", "text8")
    },
}
for _id, _keywords in _IDS.items():
    _gym.register(
        id=_id,
        entry_point="lr_gym.envs.lr_tuning:LRTuningEnv",
        vector_entry_point="lr_gym.envs.vector:LRTuningVectorEnv",
        kwargs=_keywords,
    )
