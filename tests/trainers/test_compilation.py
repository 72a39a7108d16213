"""The compiled update equals the eager one, to rounding, and reports compilations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import pytest
import torch

from lr_gym.trainers import compilation
from lr_gym.trainers.batches import IGNORE, cut_windows, even_parts
from lr_gym.trainers.compilation import (
    compiled_losses,
    forget_compiled,
    resolve_compile,
)
from lr_gym.trainers.cuda_graphs import GraphedStep, Outputs
from tests.helpers.small import small_env, small_trainer

# torch's own, while it compiles
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    forget_compiled()
    compilation._warn_of_eager_training.cache_clear()


def test_auto_does_not_compile_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert resolve_compile("off", cpu) is None
    assert resolve_compile("default", cpu) == "default"
    assert resolve_compile("auto", cpu) is None
    assert resolve_compile("auto", torch.device("cuda"), "lstm") is None
    with pytest.raises(
        ValueError, match="'graph' needs a CUDA device, got device='cpu'"
    ):
        resolve_compile("graph", cpu)


def test_a_missing_compiler_is_refused_when_making(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch itself fails only at the first step."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    message = "compile='default' needs .*'no-such-compiler'.* or pass compile='off'"
    with pytest.raises(ValueError, match=message):
        small_env(compile="default")
    small_env(compile="auto")


def test_a_missing_compiler_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    found = ModuleSpec("triton", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    monkeypatch.setenv("CC", "no-such-compiler")
    message = "compile='auto' trains without torch.compile.* C compiler .*compile='off'"
    with pytest.warns(UserWarning, match=message):
        assert resolve_compile("auto", cuda) is None
    assert resolve_compile("auto", cuda) is None  # a second warning would be an error
    assert resolve_compile("off", cuda) is None
    with pytest.raises(ValueError, match="compile='graph' needs a C compiler"):
        resolve_compile("graph", cuda)
    monkeypatch.setenv("CC", sys.executable)
    assert resolve_compile("auto", cuda) == "graph"
    assert resolve_compile("default", cuda) == "default"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="the package triton is not installed"):
        assert resolve_compile("auto", cuda) is None
    with pytest.raises(ValueError, match="needs the package triton"):
        resolve_compile("default", cuda)


def capture_by_hand(
    run: Callable[[], Outputs], device: torch.device
) -> tuple[Callable[[], object], Outputs]:
    """Like a CUDA graph: warm up, then repeat the same calls on the same memory."""
    for _ in range(3):
        outputs = run()

    def replay() -> None:
        for fixed, value in zip(outputs, run(), strict=True):
            fixed.copy_(value)

    return replay, outputs


def test_a_captured_step_trains_as_the_step_itself() -> None:
    """Chunks, a reset, an undo, a member that diverges; bit for bit."""
    results = []
    for captured in (False, True):
        trainer = small_trainer(3, dropout=0.2)
        if captured:
            graphed = GraphedStep(trainer._step, capture_by_hand)
            trainer._compiled_step = graphed
        trainer.reset(range(3), [1, 2, 3])
        outcome = [trainer.train(3, [1e-3, 1e-2, 1e-1]), trainer.evaluate()]
        before = trainer.snapshot([1])
        outcome += [trainer.train([2, 0, 1], np.full(3, 1e-2))]  # groups of two and one
        outcome += [trainer.train(2, [1e-2, 1e-2, 1e30])]
        trainer.restore([1], before, rewind=False)
        trainer.reset([0], [9])
        outcome += [trainer.train(2, np.full(3, 1e-2)), trainer.evaluate()]
        assert trainer.diverged().tolist() == [False, False, True]
        results.append(np.concatenate(outcome))
    assert len(graphed._captured) == 3  # on a CPU in float32 members go one by one
    np.testing.assert_array_equal(results[0], results[1])


def test_a_capture_that_fails_leaves_the_state_as_it_was() -> None:
    trainer = small_trainer()

    def failing(run: Callable[[], Outputs], device: torch.device) -> Any:
        run()
        raise RuntimeError("out of memory")

    trainer._compiled_step = GraphedStep(trainer._step, failing)
    before = trainer.state_dict()
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train(1, [1e-2])
    assert torch.equal(trainer.state_dict()["parameters"], before["parameters"])


def test_even_parts_predict_each_character_once() -> None:
    windows = cut_windows(torch.arange(101), 10, None)  # (10, 11)
    for most, sizes in ((3, [3, 3, 3, 3]), (4, [4, 4, 4]), (10, [10]), (99, [10])):
        parts = even_parts(windows, most)
        assert [len(part) for part in parts] == sizes
        together = torch.cat(parts)
        assert torch.equal(together[:10], windows)
        assert (together[10:] == IGNORE).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_compiled_evaluation_is_the_eager_one(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lr_gym.trainers.loss.MIN_VMAP_MEMBERS", 2)
    trainer = small_trainer(size)
    expected = trainer.evaluate("val", exact=True)
    compiled = compiled_losses(trainer.population_loss, trainer._step)
    trainer._evaluation.compiled_losses = compiled
    np.testing.assert_allclose(trainer.evaluate("val", exact=True), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt", "conv"])
def test_a_compiled_population_trains_as_an_eager_one(
    architecture: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two members, dropout, one that diverges, and a chunk for one member only."""
    monkeypatch.setattr("lr_gym.trainers.loss.MIN_VMAP_MEMBERS", 2)  # both in one pass
    results = []
    for compile_mode in ("default", "off"):
        options = {"compile": compile_mode, "architecture": architecture}
        trainer = small_trainer(2, dropout=0.2, **options)
        trainer.reset(range(2), [1, 2])
        rates = np.array([1e-3, 1e-2])
        outcome = [trainer.train(6, rates), trainer.evaluate()]
        before = trainer.snapshot([0])
        outcome += [trainer.train([0, 2], rates), trainer.evaluate()]
        assert torch.equal(before["parameters"], trainer.snapshot([0])["parameters"])
        trainer.train(4, [1e-3, 1e30])
        assert trainer.diverged().tolist() == [False, True]
        outcome.append(trainer.evaluate(members=[0]))
        results.append(np.concatenate(outcome))
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)
    said = capfd.readouterr().err
    assert said.count("compiling the training step for 2 members") == 1


@pytest.mark.slow
def test_a_compiled_run_repeats_bit_for_bit() -> None:
    curves = []
    for _ in range(2):
        trainer = small_trainer(compile="default")
        trainer.reset([0], [3])
        curves.append((*trainer.train(5, [1e-2]), *trainer.evaluate()))
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_trainers_with_the_same_step_compile_it_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any rate and length; another model or optimizer is compiled separately."""
    _trace_only(monkeypatch)
    options: list[dict[str, Any]] = [
        {},
        {"learning_rate": 1e-2, "max_iters": 8, "eval_interval": 4, "warmup_iters": 0},
        {"dropout": 0.2},
        {"grad_clip": 0.5},
        {},
    ]
    compilations = []
    losses = []
    for option in options:
        trainer = small_trainer(compile="default", **option)
        trainer.reset([0], [3])
        losses.append(trainer.train(5, [1e-2])[0])
        said = capfd.readouterr().err
        compilations.append(said.count("compiling the training step"))
    assert compilations == [1, 0, 1, 1, 0]
    assert losses[0] == losses[1] == losses[4]
    assert len(set(losses)) == 3


@pytest.mark.slow
def test_the_oldest_compiled_step_is_dropped(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _trace_only(monkeypatch)
    monkeypatch.setattr("lr_gym.trainers.compilation.MAX_CACHED_STEPS", 1)
    said = []
    for dropout in (0.0, 0.2, 0.2, 0.0):
        small_trainer(compile="default", dropout=dropout).train(2, [1e-3])
        said.append(capfd.readouterr().err.count("compiling the training step"))
    assert said == [1, 1, 0, 1]


@pytest.mark.slow
def test_populations_of_many_sizes_compile_in_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than torch's limit of variants of one function; only traced."""
    _trace_only(monkeypatch)
    monkeypatch.setattr("lr_gym.trainers.loss.MIN_VMAP_MEMBERS", 2)
    for size in range(1, 11):
        trainer = small_trainer(size, compile="default")
        assert np.isfinite(trainer.train(2, np.full(size, 1e-3))).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_one_compilation_serves_chunks_of_any_length(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trace_only(monkeypatch)
    monkeypatch.setattr("lr_gym.trainers.loss.MIN_VMAP_MEMBERS", 2)
    trainer = small_trainer(size, compile="default", dropout=0.2)
    trainer.train(2, np.full(size, 1e-3))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for iterations in (5, 1, 3):
            trainer.train(iterations, np.full(size, 1e-3))


def _trace_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch.compile trace and guard, but generate no code, to save time."""
    compile_for_real = torch.compile

    def trace(function: Any, **options: Any) -> Any:
        return compile_for_real(function, backend="eager", **(options | {"mode": None}))

    monkeypatch.setattr(torch, "compile", trace)
