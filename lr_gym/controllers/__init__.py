"""A policy in somebody's own training loop.

`ControllerLR` is the scheduler; `lr_gym.controllers.hf` and
`lr_gym.controllers.lightning` are the same for Hugging Face's Trainer and Lightning.
"""

from lr_gym.controllers.controller import ControllerLR as ControllerLR
from lr_gym.controllers.export import export_policy as export_policy
from lr_gym.controllers.history import Record as Record
from lr_gym.controllers.policy import ActionPolicy as ActionPolicy
from lr_gym.controllers.policy import Decision as Decision
from lr_gym.controllers.policy import Policy as Policy
from lr_gym.controllers.policy_file import load_controller as load_controller
from lr_gym.controllers.policy_file import read_provenance as read_provenance
from lr_gym.controllers.policy_file import save_policy as save_policy
from lr_gym.controllers.ramp_and_undo import RampAndUndo as RampAndUndo
from lr_gym.controllers.snapshots import load_state as load_state
from lr_gym.controllers.snapshots import save_state as save_state
from lr_gym.controllers.update_size_rule import UpdateSizeRule as UpdateSizeRule
