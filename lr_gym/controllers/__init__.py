"""Policies that set the learning rate in a user's training loop.

`ControllerLR` is the scheduler for a PyTorch loop.
`lr_gym.controllers.integrations.huggingface` and
`lr_gym.controllers.integrations.lightning` hold the callbacks for Hugging Face's
Trainer and for Lightning.
"""

from lr_gym.controllers.controller import ControllerLR as ControllerLR
from lr_gym.controllers.history import Record as Record
from lr_gym.controllers.policies.export import export_policy as export_policy
from lr_gym.controllers.policies.policy import ActionPolicy as ActionPolicy
from lr_gym.controllers.policies.policy import Decision as Decision
from lr_gym.controllers.policies.policy import Policy as Policy
from lr_gym.controllers.policies.policy_file import load_controller as load_controller
from lr_gym.controllers.policies.policy_file import read_provenance as read_provenance
from lr_gym.controllers.policies.policy_file import save_policy as save_policy
from lr_gym.controllers.policies.ramp_and_undo import RampAndUndo as RampAndUndo
from lr_gym.controllers.policies.update_size_rule import (
    UpdateSizeRule as UpdateSizeRule,
)
from lr_gym.controllers.policy_lr import PolicyLR as PolicyLR
from lr_gym.controllers.snapshots import load_state as load_state
from lr_gym.controllers.snapshots import save_state as save_state
