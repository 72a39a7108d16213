"""The decision process: pure functions of the state of E episodes.

The single environment is E = 1 of the same code. Nothing here trains.
"""

from lr_gym.mdp.actions import decode_actions as decode_actions
from lr_gym.mdp.actions import next_learning_rate as next_learning_rate
from lr_gym.mdp.config import MDPConfig as MDPConfig
from lr_gym.mdp.decisions import decision_points as decision_points
from lr_gym.mdp.decisions import rescale_decision_points as rescale_decision_points
from lr_gym.mdp.observations import LOSS_BOUND as LOSS_BOUND
from lr_gym.mdp.observations import observation_bounds as observation_bounds
from lr_gym.mdp.observations import observe as observe
from lr_gym.mdp.observations import space_bounds as space_bounds
