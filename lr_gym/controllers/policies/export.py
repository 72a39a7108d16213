"""Export a stable-baselines3 model to a policy file that needs only NumPy.

This module reads the model's attributes; it imports neither stable-baselines3 nor
torch.
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

    The file holds the actor of PPO, A2C and TRPO, or the action values of DQN and
    QR-DQN, and the standardization of `VecNormalize`.

    Args:
        model: A model with an MlpPolicy of linear layers and tanh or ReLU.
        path: The file; `lr_gym.load_controller` reads it.
        env: The learning-rate environment that the model was trained on, or a VecEnv of
            it; `None` takes `model.get_env()`.
        provenance: Added to the facts about the model and its training.

    Returns:
        The policy that `load_controller` returns for the file.

    Raises:
        TypeError: `model` or `env` cannot be exported; the message says why.
        ValueError: A wrapper other than `VecNormalize` changes the observations.
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
    if config.loss_floor is None:  # training used the corpus's floor
        config = dataclasses.replace(config, loss_floor=_corpus_floor(episodes))
    policy = ActionPolicy(config, mlp)
    save_policy(policy, path, facts | dict(provenance or {}))
    return policy


def _corpus_floor(episodes: Any) -> float:  # noqa: ANN401 - `EpisodeBatch`
    """Return the corpus's loss floor; ValueError if the policy saw several."""
    if episodes.family is not None and "log_excess_loss" in episodes.config.features:
        raise ValueError(
            "the feature log_excess_loss used a different loss floor for each corpus: "
            "train with one loss_floor=... to export the model"
        )
    return float(episodes.loss_floor[0])


def _find_episodes(env: Any) -> Any:  # noqa: ANN401 - of any of three APIs
    """Return the `EpisodeBatch` below wrappers of Gymnasium or stable-baselines3."""
    if hasattr(env, "get_attr") and not hasattr(env, "single_action_space"):
        try:
            return env.get_attr("episodes")[0]  # a VecEnv
        except AttributeError:
            pass
    episodes = getattr(getattr(env, "unwrapped", env), "episodes", None)
    if episodes is None:
        raise TypeError(
            "env must be the learning-rate environment that the model was trained on, "
            f"or a VecEnv of it, got {env!r}"
        )
    return episodes


def _check_spaces(model: Any, config: MDPConfig) -> None:  # noqa: ANN401
    """Raise ValueError if a wrapper changed the observations of the model."""
    low, high = mdp.space_bounds(config)
    space = model.observation_space
    same = getattr(space, "shape", None) == low.shape
    if not (
        same and np.array_equal(space.low, low) and np.array_equal(space.high, high)
    ):
        raise ValueError(
            f"the model observes {space}, the environment returns Box({low}, {high}): "
            "of all observation wrappers, only VecNormalize can be exported"
        )


def _read_normaliser(model: Any) -> Normaliser | None:  # noqa: ANN401
    """Return the standardization of `VecNormalize`, or `None` without it."""
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
    """Return the layers from observation to action scores, and the activation."""
    kind = type(policy).__name__
    if hasattr(policy, "lstm_actor") or getattr(policy, "use_sde", False):
        raise TypeError(f"{kind} cannot be exported: it is recurrent, or uses gSDE")
    extractor = type(getattr(policy, "features_extractor", None)).__name__
    q_net = getattr(policy, "q_net", getattr(policy, "quantile_net", None))
    if q_net is not None:
        extractor = type(q_net.features_extractor).__name__
    if extractor not in ("FlattenExtractor", "NoneType"):
        raise TypeError(f"{kind} cannot be exported: it has a {extractor}")
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
    """Return the linear layers and the activation between them."""
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
    """Return the last layer of QR-DQN, averaged over quantiles: still linear."""
    actions = len(bias) // quantiles
    return (
        weight.reshape(quantiles, actions, -1).mean(axis=0),
        bias.reshape(quantiles, actions).mean(axis=0),
    )
