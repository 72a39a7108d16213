"""`LRTuningVectorEnv`: many training runs in one process, by Gymnasium's vector API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from lr_gym.envs.copying import EpisodePickle
from lr_gym.envs.episodes import INFO_KEYS
from lr_gym.envs.factory import build_episodes, check_settings
from lr_gym.envs.lr_tuning import LRTuningEnv
from lr_gym.envs.rendering import (
    RenderFrame,
    check_render_mode,
    render_ansi,
    render_rgb,
    seed_label,
    training_kind,
)
from lr_gym.envs.spaces import (
    build_action_space,
    build_observation_space,
    read_action,
)
from lr_gym.envs.trainer_choice import REAL, TrainerChoice
from lr_gym.trainers.base import Trainer, mask_of
from lr_gym.validation import check_integer, check_keys

Step = tuple[
    NDArray[np.float32],
    NDArray[np.float64],
    NDArray[np.bool_],
    NDArray[np.bool_],
    dict[str, Any],
]


class LRTuningVectorEnv(VectorEnv[Any, Any, Any], EpisodePickle):
    """`num_envs` episodes of `LRTuningEnv` on one population of training runs.

    Member e with the seed s + e gives the results of the single environment with that
    seed (to rounding), in a population of any size. Each member ends and resets
    independently, by Gymnasium's definitions of `autoreset_mode`:

    - ``NextStep`` (default): the step after an episode's end ignores the action,
      resets, and returns the new episode's first observation with reward 0.
    - ``SameStep``: the ending step resets at once; the last observation and info of the
      old episode are in ``infos["final_obs"]`` and ``infos["final_info"]``.
    - ``Disabled``: the caller resets, by ``reset(options={"reset_mask": mask})``.

    `max_episode_steps` truncates each episode after that many decisions, as
    Gymnasium's `TimeLimit` truncates a single environment.

    >>> import gymnasium as gym
    >>> import lr_gym
    >>> envs = gym.make_vec("LRTuning-markov-v0", num_envs=3, scale="tiny", max_iters=4,
    ...                     eval_interval=2, warmup_iters=0, n_layer=1, eval_tokens=512)
    >>> observations, infos = envs.reset(seed=0)
    >>> observations, rewards, terminated, truncated, infos = envs.step([0, 1, 2])
    >>> infos["learning_rate"].tolist()
    [0.0015, 0.003, 0.006]
    """

    _copied = (
        *("generators", "_ended", "_history", "spec"),
        *("action_space", "single_action_space", "_np_random", "_np_random_seed"),
    )

    def __init__(
        self,
        num_envs: int = 1,
        *,
        scale: str = "auto",
        corpus: str | None = None,
        trainer: TrainerChoice = REAL,
        family: dict[str, Any] | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **settings: Any,
    ) -> None:
        """Prepare one population; see `LRTuningEnv` for the other arguments.

        Args:
            num_envs: E, at least 1.
            scale: The preset, or ``auto``.
            corpus: A built-in corpus or the path of a text file; `None` is ``markov``,
                or with a law the corpus of the law.
            trainer: ``real``, ``surrogate``, the file of a law, a `LossLaw`, or a
                `Trainer` of `num_envs` members.
            family: Fields of `lr_gym.InstanceFamily`. Each reset of a member samples
                an instance.
            autoreset_mode: ``NextStep``, ``SameStep`` or ``Disabled``.
            render_mode: ``ansi`` or ``rgb_array``; `render` returns one per member.
            max_episode_steps: Decisions after which a member's episode is truncated,
                at least 1; `None` never truncates.
            **settings: Fields of `TrainingConfig` and `MDPConfig`.

        Raises:
            TypeError: A keyword is unknown, or a value has the wrong type.
            ValueError: A value is out of range.
            FileNotFoundError: The file of the corpus or of the law is absent.
        """
        EpisodePickle.__init__(
            self,
            num_envs,
            scale=scale,
            corpus=corpus,
            trainer=trainer,
            family=family,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            **settings,
        )
        check_settings(LRTuningVectorEnv, settings)
        check_integer("num_envs", num_envs, 1)
        check_render_mode(render_mode)
        if max_episode_steps is not None:
            check_integer("max_episode_steps", max_episode_steps, 1)
        self.max_episode_steps = max_episode_steps
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = LRTuningEnv.metadata | {"autoreset_mode": self.autoreset_mode}
        self.episodes = build_episodes(
            num_envs,
            scale=scale,
            corpus=corpus,
            trainer=trainer,
            family=family,
            stacklevel=2,
            **settings,
        )
        config = self.episodes.config
        self.single_observation_space = build_observation_space(config)
        self.single_action_space = build_action_space(config)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generators = [np_random()[0] for _ in range(num_envs)]
        # Whether a member's episode has ended since its last reset.
        self._ended: NDArray[np.bool_] = np.zeros(num_envs, dtype=np.bool_)
        self._history: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]
        self._training_kind = training_kind(trainer)
        self._seed_labels = [""] * num_envs

    @property
    def trainer(self) -> Trainer:
        """The population."""
        return self.episodes.trainer

    @property
    def keep_action(self) -> int:
        """The action that keeps the learning rate; ValueError if there is none."""
        return self.episodes.config.keep_action

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start new runs, of all members or of those in ``options["reset_mask"]``.

        Args:
            seed: An integer s, which gives member e the seed s + e; or one seed per
                member.
            options: ``reset_mask``, bool of shape (E,); ``seed`` of the runs, their
                initial ``learning_rate``, and with a family ``instance``, fields that
                replace sampled ones. Each is one value, or one per reset member.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: An option is out of range, or a length does not fit.
        """
        options = dict(options or {})
        names = ("reset_mask", *self.episodes.reset_options)
        check_keys("reset(options=...)", options, names)
        mask = self._reset_mask(options.pop("reset_mask", None))
        members = np.flatnonzero(mask)
        seeds: Sequence[int | None]
        if seed is None or isinstance(seed, int):
            seeds = [None if seed is None else seed + e for e in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"seed must have {self.num_envs} entries, got {len(seeds)}"
            )
        for member in members:
            if seeds[member] is not None:
                self.generators[member], _ = np_random(seeds[member])
        self._reset_members(members, options)
        run_seeds = np.broadcast_to(np.asarray(options.get("seed")), len(members))
        for member, run_seed in zip(members, run_seeds.tolist(), strict=True):
            self._seed_labels[member] = seed_label(seeds[member], run_seed)
        return self.episodes.observe(), self._infos(members)

    def step(self, actions: ArrayLike) -> Step:
        """Set every member's learning rate, train a chunk, evaluate.

        Args:
            actions: One action per member, (E,) or (E, `action_size`).

        Raises:
            ResetNeeded: No episodes were started, or, with ``Disabled``, one has ended.
            InvalidAction: `actions` are not in the action space.
        """
        absent = np.flatnonzero(self.episodes.state.terminated & ~self._ended)
        if len(absent):
            raise ResetNeeded(
                f"episodes {absent.tolist()} have not started: call reset() before "
                "step()"
            )
        actions = read_action("actions", actions, self.action_space)
        resetting = np.flatnonzero(self._ended)
        if self.autoreset_mode is AutoresetMode.DISABLED and len(resetting):
            raise ResetNeeded(
                f"episodes {resetting.tolist()} have ended: reset them with "
                'options={"reset_mask": ...}'
            )
        acting = np.flatnonzero(~self._ended)  # all, unless NextStep resets some now
        rewards: NDArray[np.float64] = np.zeros(self.num_envs)
        if len(acting):
            members = None if len(acting) == self.num_envs else acting.tolist()
            rewards = self.episodes.step(actions, members)
        terminated = self.episodes.state.terminated.copy()
        terminated[resetting] = False
        truncated = self._at_step_limit()
        truncated[resetting] = False
        if len(resetting):
            self._reset_members(resetting, {})
        infos = self._infos(np.arange(self.num_envs))
        self._ended = terminated | truncated
        ended = np.flatnonzero(self._ended)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and len(ended):
            infos = self._autoreset(ended, infos)
        return self.episodes.observe(), rewards, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return one line of text or one image per member, by `render_mode`.

        Raises:
            ResetNeeded: No episodes were started.
        """
        if self.render_mode is None:
            return None
        return tuple(self.render_member(member) for member in range(self.num_envs))

    def render_member(self, member: int) -> RenderFrame | None:
        """Return one member's line of text or image, by `render_mode`.

        Raises:
            ResetNeeded: The member's episode was not started.
        """
        if self.render_mode is None:
            return None
        history, length = self._history[member], int(self.episodes.max_iters[member])
        if not history:
            raise ResetNeeded("nothing to render yet: call reset() first")
        if self.render_mode == "ansi":
            return render_ansi(history, length)
        scale, config = self.episodes.training.scale, self.episodes.config
        return render_rgb(
            history,
            length,
            f"{self.episodes.corpus(member)}, {scale}, {self._training_kind}"
            f"{self._seed_labels[member]}",
            (config.min_lr, config.max_lr),
        )

    # ------------------------------------------------------------------------- members

    def _at_step_limit(self) -> NDArray[np.bool_]:
        """Return which members have made `max_episode_steps` decisions, (E,)."""
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, dtype=np.bool_)
        at_limit: NDArray[np.bool_]
        at_limit = self.episodes.state.decision >= self.max_episode_steps
        return at_limit

    def _reset_mask(self, mask: object) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be a bool array, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must have shape ({self.num_envs},) and a True, got {mask}"
            )
        return mask

    def _reset_members(
        self, members: NDArray[np.int64], options: dict[str, Any]
    ) -> None:
        """Reset `members`."""
        generators = [self.generators[member] for member in members]
        self.episodes.reset(members.tolist(), generators, options)
        self._ended[members] = False
        for member in members:
            self._history[member] = []
            self._seed_labels[member] = ""  # `reset` sets it

    def _infos(self, members: NDArray[np.int64]) -> dict[str, Any]:
        """Return the infos of `members` with Gymnasium's masks, and record them."""
        infos = _masked(self.episodes.info(), mask_of(members, self.num_envs))
        if self.render_mode is not None:
            for member in members:
                info = {k: v[member].item() for k, v in infos.items() if k[0] != "_"}
                self._history[member].append(info)
        return infos

    def _autoreset(
        self, ended: NDArray[np.int64], infos: dict[str, Any]
    ) -> dict[str, Any]:
        """Reset `ended` within the step; add their last observations and infos."""
        mask = mask_of(ended, self.num_envs)
        observations = self.episodes.observe()
        final_obs = np.full(self.num_envs, None, dtype=object)
        for member in ended:
            final_obs[member] = observations[member]
        final_info = {key: infos[key] for key in INFO_KEYS}
        self._reset_members(ended, {})
        reset_infos = self._infos(ended)
        infos = {k: np.where(mask, reset_infos[k], old) for k, old in infos.items()}
        infos |= {"final_obs": final_obs, "_final_obs": mask.copy()}
        final_info = _masked(final_info, mask)
        return infos | {"final_info": final_info, "_final_info": mask.copy()}


def _masked(
    values: dict[str, NDArray[Any]], mask: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """Return ``key`` and its mask ``_key`` for every key, (E,).

    Values are 0 where the mask is false.
    """
    infos: dict[str, NDArray[Any]] = {}
    for key, column in values.items():
        masked = np.where(mask, column, np.zeros_like(column))
        infos[key] = column if mask.all() else masked
        infos[f"_{key}"] = mask.copy()
    return infos
