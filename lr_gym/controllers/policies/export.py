"""From a stable-baselines3 model to a policy file that needs NumPy alone.

Reads the model's attributes and imports neither stable-baselines3 nor torch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lr_gym import mdp
from lr_gym.controllers.policies.mlp import MLP, Normaliser
from lr_gym.controllers.policies.policy import ActionPolicy
from lr_gym.controllers.policies.policy_file import save_policy
from lr_gym.mdp.config import MDPConfig

ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu"}
Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def export_policy(
    model: Any,  # noqa: ANN401 - of an optional library
    path: str | os.PathLike[str],
    *,
    env: object = None,
    provenance: Mapping[str, Any] | None = None,
) -> ActionPolicy:
    """Write the greedy policy of a stable-baselines3 model to one file.

    PPO, A2C and TRPO give their actor, DQN and QR-DQN their action values. Observations
    standardized by `VecNormalize` stay so.

    Args:
        model: With an MlpPolicy of linear layers and tanh or ReLU.
        path: The file; `lr_gym.load_controller` reads it.
        env: What the model was trained on, a learning-rate environment of either face;
            `None` is `model.get_env()`.
        provenance: Added to what is known of the model and its training.

    Returns:
        What `load_controller` returns for the file.

    Raises:
        TypeError: `model` or `env` is of another kind; the message names it.
        ValueError: Observations are changed on the way to the model.
    """
    episodes = _find_episodes(model.get_env() if env is None else env)
    config: MDPConfig = episodes.config
    _check_spaces(model, config)
    layers, activation = _read_network(model.policy)
    mlp = MLP(
        weights=tuple(weight for weight, _ in layers),
        biases=tuple(bias for _, bias in layers),
        activation=activation,
        continuous=config.action_type == "continuous",
        normaliser=_read_normaliser(model),
    )
    mlp.check(config)
    training = episodes.training
    facts = {
        "algorithm": type(model).__name__,
        "timesteps": int(model.num_timesteps),
        "seed": None if model.seed is None else int(model.seed),
        "corpus": training.corpus,
        "scale": training.scale,
        "max_iters": training.max_iters,
        "eval_interval": training.eval_interval,
        "warmup_iters": training.warmup_iters,
        "learning_rate": training.learning_rate,
    }
    if config.loss_floor is None:  # what the observations were made with, by the corpus
        config = dataclasses.replace(config, loss_floor=_corpus_floor(episodes))
    policy = ActionPolicy(config, mlp)
    save_policy(policy, path, facts | dict(provenance or {}))
    return policy


def _corpus_floor(episodes: Any) -> float:  # noqa: ANN401 - `EpisodeBatch`
    """Return the known floor of the one corpus; ValueError where it matters which."""
    if episodes.family is not None and "log_excess_loss" in episodes.config.features:
        raise ValueError(
            "log_excess_loss was made with each corpus' own floor: train with one "
            "loss_floor=... for all to export what was learned"
        )
    return float(episodes.loss_floor[0])


def _find_episodes(env: Any) -> Any:  # noqa: ANN401 - any of three libraries' faces
    """Return the `EpisodeBatch` under Gymnasium's or stable-baselines3's wrappers."""
    if hasattr(env, "get_attr") and not hasattr(env, "single_action_space"):
        try:
            return env.get_attr("episodes")[0]  # a VecEnv
        except AttributeError:
            pass
    episodes = getattr(getattr(env, "unwrapped", env), "episodes", None)
    if episodes is None:
        raise TypeError(
            "env must be a learning-rate environment, or a VecEnv of one, got "
            f"{env!r}; pass the one that the model was trained on"
        )
    return episodes


def _check_spaces(model: Any, config: MDPConfig) -> None:  # noqa: ANN401
    """Raise ValueError where a wrapper changed what the model sees or does."""
    low, high = mdp.observation_bounds(config)
    space = model.observation_space
    same = getattr(space, "shape", None) == low.shape
    if not (
        same and np.array_equal(space.low, low) and np.array_equal(space.high, high)
    ):
        raise ValueError(
            f"the model observes {space}, the environment gives Box({low}, {high}): "
            "of the wrappers that change observations only VecNormalize can be exported"
        )


def _read_normaliser(model: Any) -> Normaliser | None:  # noqa: ANN401
    wrapper = model.get_vec_normalize_env()
    if wrapper is None or not wrapper.norm_obs:
        return None
    statistics = wrapper.obs_rms
    return Normaliser(
        mean=np.array(statistics.mean, dtype=np.float64),
        variance=np.array(statistics.var, dtype=np.float64),
        epsilon=float(wrapper.epsilon),
        clip=float(wrapper.clip_obs),
    )


def _read_network(policy: Any) -> tuple[Layers, str]:  # noqa: ANN401
    """Return the layers from the observation to the actions' scores."""
    kind = type(policy).__name__
    if hasattr(policy, "lstm_actor") or getattr(policy, "use_sde", False):
        raise TypeError(f"{kind} cannot be exported: it is recurrent, or uses gSDE")
    extractor = type(getattr(policy, "features_extractor", None)).__name__
    q_net = getattr(policy, "q_net", getattr(policy, "quantile_net", None))
    if q_net is not None:
        extractor = type(q_net.features_extractor).__name__
    if extractor not in ("FlattenExtractor", "NoneType"):
        raise TypeError(f"{kind} cannot be exported: it has its own {extractor}")
    if hasattr(policy, "action_net"):
        modules = [*policy.mlp_extractor.policy_net, policy.action_net]
    elif hasattr(policy, "quantile_net"):
        modules = [*policy.quantile_net.quantile_net]
    elif hasattr(policy, "q_net"):
        modules = [*policy.q_net.q_net]
    else:
        raise TypeError(f"{kind} cannot be exported: no actor and no action values")
    layers, activation = _read_modules(kind, modules)
    if hasattr(policy, "quantile_net"):
        layers[-1] = _mean_quantile(*layers[-1], policy.quantile_net.n_quantiles)
    return layers, activation


def _read_modules(kind: str, modules: Iterable[Any]) -> tuple[Layers, str]:
    """Return the linear layers and the one activation between them."""
    layers: Layers = []
    activations = set()
    for module in modules:
        name = type(module).__name__
        if name == "Linear":
            weight, bias = (
                value.detach().cpu().numpy().astype(np.float32)
                for value in (module.weight, module.bias)
            )
            layers.append((weight, bias))
        elif name in ACTIVATIONS:
            activations.add(ACTIVATIONS[name])
        else:
            raise TypeError(
                f"{kind} cannot be exported: it has a {name}; allowed are Linear, "
                f"{', '.join(ACTIVATIONS)}"
            )
    if len(activations) > 1:
        raise TypeError(f"{kind} cannot be exported: it mixes {sorted(activations)}")
    return layers, activations.pop() if activations else "tanh"


def _mean_quantile(
    weight: NDArray[np.float32], bias: NDArray[np.float32], quantiles: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the last layer of QR-DQN with its quantiles averaged, which is linear."""
    actions = len(bias) // quantiles
    return (
        weight.reshape(quantiles, actions, -1).mean(axis=0),
        bias.reshape(quantiles, actions).mean(axis=0),
    )
