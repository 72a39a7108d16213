"""The registered environments: each id works by itself."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import lr_gym
from lr_gym.surrogate.law_files import packaged_laws
from tests.helpers.small import SMALL, small_env

IDS = sorted(name for name in gym.registry if name.startswith("LRTuning"))
CLIENT_IDS = [f"LRTuning-{corpus}-tiny-v0" for corpus in lr_gym.CORPUS_NAMES]
CLIENT_IDS += [
    f"LRTuningSim-{corpus}-tiny-v0"
    for corpus, scale in packaged_laws()
    if scale == "tiny"
]


@pytest.fixture(name="stand_ins", autouse=True)
def fixture_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small texts in place of the published corpora: allowed as partial copies."""
    text = "the quick brown fox jumps over the lazy dog. " * 200
    for name in ("tinyshakespeare.txt", "enwik8", "text8"):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("LR_GYM_DATA", str(tmp_path))
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "1")
    warnings.filterwarnings("ignore", message=".*partial.*")


@pytest.mark.parametrize("env_id", IDS)
def test_the_checkers_of_gymnasium_and_sb3_pass_without_a_warning(env_id: str) -> None:
    simulated = env_id.startswith("LRTuningSim")
    env = gym.make(env_id) if simulated else small_env(id=env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*partial.*")
        check_env(env.unwrapped)
        check_env_sb3(env.unwrapped)


def test_the_registered_ids() -> None:
    expected = {"LRTuningEnv-v0"}
    for corpus in lr_gym.CORPUS_NAMES:
        expected |= {f"LRTuning-{corpus}-v0", f"LRTuning-{corpus}-tiny-v0"}
    for corpus, scale in packaged_laws():
        if scale == "tiny":
            expected.add(f"LRTuningSim-{corpus}-tiny-v0")
    assert expected == set(IDS)
    assert isinstance(
        gym.make("lr_gym:LRTuning-markov-v0", **SMALL, scale="tiny"), gym.Env
    )


@pytest.mark.parametrize("env_id", CLIENT_IDS)
def test_ids_for_clients_that_pass_only_an_id(env_id: str) -> None:
    """CleanRL passes an id and nothing else."""
    env, envs = gym.make(env_id), gym.make_vec(env_id, num_envs=2)
    assert env.observation_space == envs.single_observation_space
    episodes = env.unwrapped.episodes  # type: ignore[attr-defined]
    assert episodes.training.scale == "tiny"
    assert episodes.config.features == ("val_loss", "log_learning_rate", "progress")
    simulated = isinstance(episodes.trainer, lr_gym.SurrogateTrainer)
    assert simulated == env_id.startswith("LRTuningSim")
    assert env.spec is not None
    assert gym.make(EnvSpec.from_json(env.spec.to_json())).spec == env.spec
    wider = gym.make(env_id, features=("val_loss",))
    assert wider.observation_space.shape == (1,)
