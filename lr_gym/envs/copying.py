"""Copies and pickles of environments: they continue in mid-episode."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from gymnasium.utils import EzPickle

from lr_gym.envs.episodes import EpisodeBatch
from lr_gym.surrogate.law import LossLaw


class EpisodePickle(EzPickle):
    """Gymnasium's `EzPickle`, with the episodes and the random streams.

    A copy is constructed from the same arguments, so it shares nothing with the
    original, and then takes over the state. Texts are not in a pickle.
    """

    episodes: EpisodeBatch
    _copied: ClassVar[tuple[str, ...]] = ()  # attributes besides the episodes

    def __getstate__(self) -> dict[str, Any]:
        """Return the constructor's arguments and the state.

        Raises:
            TypeError: An episode has started over a trainer that the user passed.
        """
        state: dict[str, Any] = super().__getstate__()
        if self.episodes.started.any():
            trainer = state["_ezpickle_kwargs"]["trainer"]
            if not isinstance(trainer, str | os.PathLike | LossLaw | Mapping):
                raise TypeError(
                    "cannot copy or pickle an environment in mid-episode with your own "
                    "trainer, because the copy could share the training run: make "
                    "another environment with another trainer"
                )
            state["_episodes"] = self.episodes.state_dict()
        state["_attributes"] = {name: getattr(self, name) for name in self._copied}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Construct the environment, then put the state back."""
        super().__setstate__(state)
        if "_episodes" in state:
            self.episodes.load_state_dict(state["_episodes"])
        vars(self).update(copy.deepcopy(state["_attributes"]))
