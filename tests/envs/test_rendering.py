"""Rendered episodes: lines of text, pictures, and the progress bar."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lr_gym.envs import rendering
from tests.envs.test_vector import make_vector
from tests.helpers.small import small_env


@pytest.fixture(name="figures")
def fixture_figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures behind all frames."""
    figures: list[Figure] = []

    class Canvas(FigureCanvasAgg):
        def __init__(self, figure: Figure) -> None:
            super().__init__(figure)
            figures.append(figure)

    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg", Canvas)
    return figures


def title(figure: Figure) -> str:
    return str(figure.axes[0].get_title())


def episode(figures: list[Figure], actions: list[int], **settings: Any) -> list[Figure]:
    """Play an episode with a frame after each step; return the figures."""
    env = small_env(render_mode="rgb_array", **settings)
    env.reset(seed=0)
    env.render()
    for action in actions:
        env.step(action)
        env.render()
    return figures


def test_the_rate_is_constant_within_a_chunk(figures: list[Figure]) -> None:
    last = episode(figures, [0, 2, 2, 1])[-1]
    (line,) = last.axes[1].get_lines()
    assert line.get_drawstyle() == "steps-pre"  # y[k] holds from x[k - 1] to x[k]
    # The initial rate was never trained with: the first action changed it.
    assert np.asarray(line.get_xdata()).tolist() == [0, 2, 4, 6, 8]
    rates = np.array([0.5, 0.5, 1.0, 2.0, 2.0]) * 1e-3
    assert line.get_ydata() == pytest.approx(rates)


def test_axes_stand_still_in_an_episode(figures: list[Figure]) -> None:
    episode(figures, [0, 2, 2, 1])
    limits = {tuple((a.get_xlim(), a.get_ylim()) for a in f.axes) for f in figures}
    places = {tuple(a.get_position().bounds for a in f.axes) for f in figures}
    assert len(figures) == 5
    assert len(limits) == len(places) == 1


def test_divergence_is_marked(figures: list[Figure]) -> None:
    settings: dict[str, Any] = {
        "learning_rate": 0.9,
        "divergence_factor": 1.0001,
        "grad_clip": 0.0,
    }
    before, after = episode(figures, [1], **settings)
    for figure, marked in ((before, False), (after, True)):
        _, labels = figure.axes[0].get_legend_handles_labels()
        assert ("diverged" in labels) is marked


def test_the_title_names_the_seed_only_if_it_was_passed(figures: list[Figure]) -> None:
    env = small_env(render_mode="rgb_array")
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "real training"),
        ({"seed": 3}, "real training, seed 3"),
        ({"options": {"seed": 5}}, "real training, run seed 5"),
        ({"seed": 3, "options": {"seed": 5}}, "real training, run seed 5"),
        ({}, "real training"),
    )
    for arguments, end in cases:
        env.reset(**arguments)
        env.render()
        assert title(figures[-1]) == f"markov, tiny, {end}"


def test_the_title_of_members_names_their_seeds(figures: list[Figure]) -> None:
    envs = make_vector(2, render_mode="rgb_array")

    def titles() -> list[str]:
        figures.clear()
        envs.render()
        return [title(figure) for figure in figures]

    envs.reset(seed=3)
    start = "markov, tiny, real training"
    assert titles() == [f"{start}, seed 3", f"{start}, seed 4"]
    envs.reset(options={"seed": [7, 8]})
    assert titles() == [f"{start}, run seed 7", f"{start}, run seed 8"]
    for _ in range(5):  # the next episodes have seeds that were not passed
        envs.step([1, 1])
    assert titles() == [start, start]


def test_a_simulated_run_says_so(figures: list[Figure]) -> None:
    settings: dict[str, Any] = {
        "trainer": "surrogate",
        "scale": "tiny",
        "render_mode": "rgb_array",
    }
    env = gym.make("LRTuning-markov-v0", **settings)
    env.reset(seed=1)
    env.render()
    assert title(figures[-1]) == "markov, tiny, simulated, seed 1"
    envs = gym.make_vec("LRTuning-markov-v0", num_envs=1, **settings)
    envs.reset()
    envs.render()
    assert title(figures[-1]) == "markov, tiny, simulated"
    assert rendering.training_kind(object()) == "a user's trainer"


def test_a_line_of_text_and_a_picture_of_the_episode() -> None:
    env = small_env(render_mode="ansi")
    env.reset(seed=0)
    env.step(1)
    line = env.render()
    assert isinstance(line, str)
    assert line.startswith("iteration      2/8  val_loss 3.4")
    picture = small_env(render_mode="rgb_array")
    picture.reset(seed=0)
    before = picture.render()
    picture.step(1)
    after = picture.render()
    assert isinstance(before, np.ndarray)
    assert before.shape == (480, 640, 3)
    assert before.dtype == np.uint8
    assert isinstance(after, np.ndarray)
    assert not np.array_equal(before, after)


def test_human_rendering_by_gymnasiums_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.wrappers.HumanRendering(small_env(render_mode="rgb_array"))
    env.reset(seed=0)
    env.step(1)
    env.close()


def test_the_progress_bar_counts_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    env = small_env(progress_bar=True)
    env.reset(seed=0)
    for _ in range(4):
        env.step(1)
    assert "8/8" in capsys.readouterr().err
