"""lr-gym: a Gymnasium environment in which an episode is a training run.

Importing it registers ``LRTuning-{markov,shakespeare,enwik8,text8}-v0``, one per
built-in corpus, and ``LRTuningEnv-v0``, everything by keyword.
"""

from __future__ import annotations

import gymnasium as _gym

from lr_gym.config import TrainingConfig as TrainingConfig
from lr_gym.config import preset as preset
from lr_gym.controllers import export_policy as export_policy
from lr_gym.controllers import load_controller as load_controller
from lr_gym.corpora import CORPUS_NAMES as CORPUS_NAMES
from lr_gym.corpora import Corpus as Corpus
from lr_gym.corpora import load_corpus as load_corpus
from lr_gym.env import LRTuningEnv as LRTuningEnv
from lr_gym.instances import HELD_OUT as HELD_OUT
from lr_gym.instances import Instance as Instance
from lr_gym.instances import InstanceFamily as InstanceFamily
from lr_gym.law_files import load_law as load_law
from lr_gym.law_fitting import fit_surrogate as fit_surrogate
from lr_gym.loss_law import LossLaw as LossLaw
from lr_gym.mdp import PAPER_FACTORS as PAPER_FACTORS
from lr_gym.mdp import MDPConfig as MDPConfig
from lr_gym.mixed import MixedTrainer as MixedTrainer
from lr_gym.recorded_runs import RecordedRun as RecordedRun
from lr_gym.schedules import SCHEDULES as SCHEDULES
from lr_gym.schedules import schedule_factor as schedule_factor
from lr_gym.sharding import ShardedTrainer as ShardedTrainer
from lr_gym.surrogate import SurrogateTrainer as SurrogateTrainer
from lr_gym.trainer import Trainer as Trainer
from lr_gym.training import PopulationTrainer as PopulationTrainer
from lr_gym.vector_env import LRTuningVectorEnv as LRTuningVectorEnv
from lr_gym.wrapping import wrap_training as wrap_training

__version__ = "0.1.0"

for _corpus in CORPUS_NAMES:
    _gym.register(
        id=f"LRTuning-{_corpus}-v0",
        entry_point="lr_gym.env:LRTuningEnv",
        vector_entry_point="lr_gym.vector_env:LRTuningVectorEnv",
        kwargs={"corpus": _corpus},
    )
_gym.register(
    id="LRTuningEnv-v0",
    entry_point="lr_gym.env:LRTuningEnv",
    vector_entry_point="lr_gym.vector_env:LRTuningVectorEnv",
)
