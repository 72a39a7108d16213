"""stable-baselines3's VecEnv over one population; the public name of `envs/sb3.py`.

    from lr_gym.sb3 import make_vec_env
    model = PPO("MlpPolicy", make_vec_env("LRTuning-markov-v0", 8, scale="tiny"))

Needs stable-baselines3: ``pip install 'lr-gym[agents]'``.
"""

from lr_gym.envs.sb3 import LRTuningVecEnv as LRTuningVecEnv
from lr_gym.envs.sb3 import ScaleReward as ScaleReward
from lr_gym.envs.sb3 import make_vec_env as make_vec_env
