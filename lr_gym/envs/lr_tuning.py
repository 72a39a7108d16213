"""`LRTuningEnv`: one training run as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.error import ResetNeeded

from lr_gym.envs.copying import EpisodePickle
from lr_gym.envs.factory import build_episodes, check_settings
from lr_gym.envs.rendering import (
    RENDER_MODES,
    RenderFrame,
    check_render_mode,
    render_ansi,
    render_rgb,
    seed_label,
    training_kind,
)
from lr_gym.envs.spaces import (
    Action,
    Observation,
    build_action_space,
    build_observation_space,
    read_action,
)
from lr_gym.envs.trainer_choice import REAL, TrainerChoice
from lr_gym.trainers.base import Trainer
from lr_gym.validation import check_boolean


class LRTuningEnv(gym.Env[Observation, Action], EpisodePickle):
    r"""One episode is one training run of a character-level language model.

    ## Description

    A GPT is trained on text with AdamW; `architecture` names an LSTM or a convolutional
    model in its place. At every step the agent sets the learning rate (LR), the model
    trains for `eval_interval` iterations at that rate, and the validation loss is
    measured. The reward is the reduction in validation loss. The task is that of the
    paper "Adaptive Learning Rates for Transformers via Q-Learning"; the LR that the
    agent chooses is the one the optimizer uses, at every iteration.

    ## Action Space

    `Discrete(n)`: what the LR is multiplied by, `lr_factors`; the result is clipped to
    [`min_lr`, `max_lr`]. By default:

    | Num | Action                |
    |-----|-----------------------|
    | 0   | halve the LR          |
    | 1   | keep the LR           |
    | 2   | double the LR         |

    With `allow_undo=True` action n restores the weights and the optimizer from before
    the last chunk and divides the LR by `undo_factor`; the iterations stay spent and
    the data stream moves on.

    With `action_type="continuous"` the space is `Box(1)` in [-1, 1]: the log2 of the
    factor, in units of `max_log2_factor` (1). With `allow_undo=True` it is `Box(2)`: a
    second entry above 0 restores as above, and the LR is multiplied by the first
    entry's factor, whatever it is.

    ## Observation Space

    `Box` of float32, one entry per name in `features`, by default the first two:

    | Feature              | Quantity                                        | Unit           | Min           | Max           |
    |----------------------|-------------------------------------------------|----------------|---------------|---------------|
    | `val_loss`           | validation loss                                 | nats/character | 0             | 1000          |
    | `learning_rate`      | the agent's LR, raw                             | none           | 0             | `max_lr`      |
    | `log_learning_rate`  | log10 of the agent's LR                         | none           | log10(min_lr), at most 0 | log10(max_lr), at least 0 |
    | `progress`           | iterations spent / `max_iters`                  | none           | 0             | 1             |
    | `train_loss`         | mean training loss over the last chunk          | nats/character | 0             | 1000          |
    | `log_excess_loss`    | ln(val_loss - `loss_floor`)                     | none           | -10           | 10            |
    | `loss_slope`         | ln(previous val_loss / val_loss)                | none           | -10           | 10            |
    | `generalization_gap` | val_loss - train_loss                           | nats/character | -1000         | 1000          |
    | `grad_norm`          | log10 of the mean gradient norm, before clipping | none          | -10           | 10            |
    | `update_size`        | log10 of the size of the last update            | none           | -10           | 10            |

    The size of an update is the larger of two numbers. The first is the median over
    matrices of norm(change) / sqrt(rows), with one row per output, times the square
    root of their median number of columns. It estimates the change of a layer's outputs
    for inputs of unit variance that align with the update, at any width of the model.
    The second is 1.2 times the median of norm(change) / norm(weights).

    With the default features the remaining budget is not seen: add `progress` for a
    Markov state.

    ## Transition Dynamics

    LR <- clip(LR * factor, `min_lr`, `max_lr`). Iteration i of the run then updates the
    weights at LR * s(i), where s is `base_schedule` with its linear warm-up over
    `warmup_iters`; the default schedule is constant.

    ## Rewards

    With L the validation loss, after and before the step:

    | `reward`             | At every step                                                 |
    |----------------------|---------------------------------------------------------------|
    | `loss_reduction`     | L_before - L_after; undiscounted, an episode's rewards sum to the initial minus the final loss |
    | `log_loss_reduction` | ln(L_before / L_after)                                        |
    | `final_loss`         | 0, and -L_after at the last step                              |
    | `best_improvement`   | (lowest L so far) - L_after: the paper's code, second variant  |
    | `negative_loss`      | -L_after: the paper's code, first variant                     |

    The reward of a step that diverges makes the episode's return `divergence_penalty`
    below the worst return of any surviving episode.

    ## Starting State

    An untrained model, evaluated once. `reset(seed=...)` determines the run's
    initialization, data order and dropout. `reset(options=...)` may set the `"seed"` of
    the run and its initial `"learning_rate"`.

    With `family={...}`, fields of `lr_gym.InstanceFamily`, every reset also samples the
    run: corpus, depth, width, batch size, horizon, and an initial LR that is wrong by a
    factor. `learning_rate` is then a good LR at the environment's width. Decisions are
    at the same fractions of the run at any horizon, so their number is fixed.
    `reset(options={"instance": {...}})` replaces sampled fields;
    `env.unwrapped.episodes.instances[0]` is the result.

    ## Episode End

    1. Termination: `max_iters` iterations are spent. The budget is part of the task, so
       nothing may bootstrap past it.
    2. Termination: divergence. A loss or gradient is not finite, or the validation loss
       exceeds `divergence_factor` times the initial one. The observation stays finite.

    The environment itself never truncates; `max_episode_steps` of `gym.make` and
    `gym.make_vec` does.

    ## Copies

    `copy.deepcopy` and `pickle` in mid-episode give an environment that continues in
    the same way, bit for bit. With your own trainer they raise TypeError.

    ## Information

    `reset` and `step` return the same keys: `iteration` (int), `tokens` (int,
    characters trained on), `train_loss` (mean over the last chunk; at reset the initial
    validation loss), `val_loss`, `best_val_loss`, `learning_rate` (the agent's),
    `optimizer_lr` (the optimizer's at the chunk's last iteration; 0 at reset),
    `progress`, `diverged` (bool) and `seed` (int, of the run). Nothing comes from the
    test split. Wall time is not among them, since Gymnasium asks that equal episodes
    give equal infos: see `env.unwrapped.trainer.telemetry()`.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import lr_gym
    >>> env = gym.make("LRTuning-markov-v0", scale="tiny", max_iters=4, eval_interval=2,
    ...                warmup_iters=0, n_layer=1, eval_tokens=512)
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(1)
    >>> info["iteration"], info["learning_rate"], terminated
    (2, 0.003, False)

    ```

    | Parameter      | Type     | Default    | Description                                        |
    |----------------|----------|------------|----------------------------------------------------|
    | `scale`        | **str**  | `"auto"`   | preset: `paper`, `mini` or `tiny`; `auto` is `paper` on CUDA, else `mini`, and warns which |
    | `corpus`       | **str**  | by id      | `markov`, `shakespeare`, `enwik8`, `text8`, or the path of a text file |
    | `trainer`      | **str**  | `"real"`   | `real` trains; `surrogate` simulates by the law fitted to this corpus and scale; the path of a law's `.json` file; an object, a `lr_gym.LossLaw` or one with the methods of `lr_gym.Trainer`; or with a family a dict of laws or their files by corpus |
    | `family`       | **dict** | `None`     | fields of `lr_gym.InstanceFamily`, which each reset samples from; for `real` and `surrogate` training |
    | `progress_bar` | **bool** | `False`    | show iterations per second and the time left while a step runs |
    | `render_mode`  | **str**  | `None`     | `ansi` or `rgb_array` (`human` by Gymnasium's wrapper) |

    With `trainer="surrogate"` no text is needed and `scale="auto"` is `mini`; a setting
    that the law was not fitted at (`n_layer`, `batch_size`, ...) is an error. With your
    own trainer, `max_iters`, `eval_interval`, `warmup_iters` and `learning_rate`
    describe the episode, and the rest of `TrainingConfig` is an error.

    The other arguments are every field of `lr_gym.TrainingConfig` (`architecture`,
    `learning_rate`, the initial one, `max_iters`, `eval_interval`, `n_layer`, `device`,
    `precision`, ...) and of
    `lr_gym.MDPConfig` (`lr_factors`, `reward`, `features`, `base_schedule`, `min_lr`,
    `max_lr`, ...). Unknown keywords are errors.

    ## References

    - "Adaptive Learning Rates for Transformers via Q-Learning", generated by The AI
      Scientist (SakanaAI), 2024.
    - Daniel, Taylor, Nowozin 2016, "Learning Step Size Controllers for Robust Neural
      Network Training".
    - Wu, Ren, Liao, Grosse 2018, "Understanding Short-Horizon Bias in Stochastic
      Meta-Optimization", arXiv 1803.02021: why discounting makes agents decay too
      early.

    ## Version History

    * v0: Initial version.
    """  # noqa: E501 - tables

    metadata = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012 - Gymnasium's form

    _copied = ("_np_random", "_np_random_seed", "_history", "action_space", "spec")

    def __init__(
        self,
        *,
        scale: str = "auto",
        corpus: str | None = None,
        trainer: TrainerChoice = REAL,
        family: dict[str, Any] | None = None,
        progress_bar: bool = False,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Load the corpus and prepare the trainer; see the class for the arguments.

        Raises:
            TypeError: A keyword is unknown, or a value has the wrong type.
            ValueError: A value is out of range; the message names it and the range.
            FileNotFoundError: The file of the corpus or of the law is absent.
        """
        EpisodePickle.__init__(
            self,
            scale=scale,
            corpus=corpus,
            trainer=trainer,
            family=family,
            progress_bar=progress_bar,
            render_mode=render_mode,
            **settings,
        )
        check_settings(LRTuningEnv, settings)
        check_boolean("progress_bar", progress_bar)
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.episodes = build_episodes(
            1,
            scale=scale,
            corpus=corpus,
            trainer=trainer,
            family=family,
            stacklevel=2,
            **settings,
        )
        self.observation_space = build_observation_space(self.episodes.config)
        self.action_space = build_action_space(self.episodes.config)
        self._progress_bar = progress_bar
        self._bar: Any = None
        self._history: list[dict[str, Any]] = []
        self._training_kind = training_kind(trainer)

    @property
    def trainer(self) -> Trainer:
        """The training run: a population of one."""
        return self.episodes.trainer

    @property
    def keep_action(self) -> int:
        """The action that keeps the learning rate; ValueError if there is none."""
        return self.episodes.config.keep_action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new run.

        Args:
            seed: Seeds the environment, which draws the run's seed from it.
            options: ``seed`` of the run (an integer >= 0), its initial
                ``learning_rate``, and with a family ``instance``, fields of
                `lr_gym.Instance` that replace sampled ones.

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: An option is out of range.
        """
        super().reset(seed=seed)
        self.episodes.reset([0], [self.np_random], options or {})
        self._close_bar()
        self._seed_label = seed_label(seed, (options or {}).get("seed"))
        self._history = [self._info()]
        return self.episodes.observe()[0], self._history[0].copy()

    def step(
        self, action: Action
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Set the learning rate, train for one chunk, evaluate.

        Raises:
            ResetNeeded: The episode has ended, or none was started.
            InvalidAction: `action` is not in the action space.
        """
        state = self.episodes.state
        if state.terminated[0]:
            raise ResetNeeded("the episode has ended: call reset() before step()")
        valid = read_action("action", action, self.action_space)
        reward = self.episodes.step(
            valid.reshape(1, -1), on_iteration=self._on_iteration()
        )[0]
        terminated = bool(state.terminated[0])
        if terminated:
            self._close_bar()
        self._history.append(self._info())
        return (
            self.episodes.observe()[0],
            float(reward),
            terminated,
            False,
            self._history[-1].copy(),
        )

    def render(self) -> RenderFrame | None:
        """Return one line of text or an image of the episode so far, by `render_mode`.

        Raises:
            ResetNeeded: No episode was started.
        """
        if self.render_mode is None:
            gym.logger.warn(
                "render() does nothing without a render_mode: pass "
                "render_mode='ansi' or 'rgb_array' to gym.make"
            )
            return None
        if not self._history:
            raise ResetNeeded("nothing to render yet: call reset() first")
        max_iters = int(self.episodes.max_iters[0])
        if self.render_mode == "ansi":
            return render_ansi(self._history, max_iters)
        scale, config = self.episodes.training.scale, self.episodes.config
        run = f"{self.episodes.corpus(0)}, {scale}, {self._training_kind}"
        return render_rgb(
            self._history,
            max_iters,
            run + self._seed_label,
            (config.min_lr, config.max_lr),
        )

    def close(self) -> None:
        """Close the progress bar, if one is shown."""
        self._close_bar()

    def _info(self) -> dict[str, Any]:
        return self.episodes.member_info(0)

    def _on_iteration(self) -> Callable[[], object] | None:
        if not self._progress_bar:
            return None
        if self._bar is None:
            from lr_gym.progress import ProgressBar

            self._bar = ProgressBar(
                total=int(self.episodes.max_iters[0]),
                initial=int(self.episodes.state.iteration[0]),
                desc=f"{self.episodes.corpus(0)} {self.episodes.training.scale}",
                unit="it",
            )
        update: Callable[[], object] = self._bar.update
        return update

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
