"""The trainer: repeatable, exact, and each member on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lr_gym import PopulationTrainer, schedule_factor
from lr_gym.config import ARCHITECTURES
from lr_gym.trainers.base import FloatArray
from tests.helpers.small import small_trainer, trainer_on

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def curve(trainer: PopulationTrainer, chunks: int, rate: float) -> FloatArray:
    rates = [rate] * trainer.size
    return np.array(
        [(*trainer.train(5, rates), *trainer.evaluate()) for _ in range(chunks)]
    )


def weights(trainer: PopulationTrainer) -> torch.Tensor:
    return trainer.state_dict()["parameters"]


@every_architecture
def test_a_model_knows_nothing_and_then_learns(architecture: str) -> None:
    trainer = small_trainer(architecture=architecture)
    trainer.reset([0], [0])
    assert trainer.evaluate()[0] == pytest.approx(math.log(32), abs=0.05)
    trainer.train(100, [1e-2])
    assert trainer.evaluate()[0] < 3.0  # the characters' frequencies alone give 3.23


@every_architecture
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_same_seed_gives_the_same_numbers_bit_for_bit(
    size: int, precision: str, dropout: float, architecture: str
) -> None:
    options = {"precision": precision, "architecture": architecture}
    curves = []
    for _ in range(2):
        trainer = small_trainer(size, dropout=dropout, **options)
        trainer.reset(range(size), range(7, 7 + size))
        curves.append(curve(trainer, 4, 3e-3))
    assert np.array_equal(curves[0], curves[1])


def test_a_reset_forgets_everything() -> None:
    trainer = small_trainer()
    trainer.reset([0], [7])
    first = curve(trainer, 3, 1e-2)
    trainer.reset([0], [7])
    assert np.array_equal(first, curve(trainer, 3, 1e-2))
    trainer.reset([0], [8])
    assert not np.array_equal(first, curve(trainer, 3, 1e-2))


@pytest.mark.parametrize(
    ("architecture", "dropout", "evaluation"),
    [
        *(("gpt", d, e) for d in (0.0, 0.2) for e in ("fixed", "paper")),
        ("lstm", 0.2, "fixed"),
        ("conv", 0.2, "fixed"),
    ],
)
@pytest.mark.parametrize(("size", "tolerance"), [(4, 0.0), (9, 1e-4)])
def test_a_member_trains_the_same_alone_and_in_company(
    size: int, tolerance: float, architecture: str, dropout: float, evaluation: str
) -> None:
    """Bit for bit in a small population; to rounding in one that shares its passes."""
    options: dict[str, Any] = {"dropout": dropout, "evaluation": evaluation}
    options["architecture"] = architecture
    population = small_trainer(size, max_iters=50, eval_iters=5, **options)
    population.reset(range(size), range(3, 3 + size))
    together = curve(population, 10, 1e-3)
    for member in (0, 2, size - 1):
        alone = small_trainer(1, max_iters=50, eval_iters=5, **options)
        alone.reset([0], [3 + member])
        single = curve(alone, 10, 1e-3)
        pair = together[:, [member, size + member]]
        np.testing.assert_allclose(pair, single, rtol=0, atol=tolerance)


def test_evaluating_leaves_no_trace_on_training() -> None:
    for evaluation in ("fixed", "paper"):
        trainer = small_trainer(dropout=0.1, evaluation=evaluation, eval_iters=3)
        trainer.reset([0], [1])
        trainer.train(10, [1e-3])
        quiet = weights(trainer)
        trainer.reset([0], [1])
        for _ in range(10):
            first = trainer.evaluate()
            assert np.array_equal(first, trainer.evaluate())
            trainer.evaluate("train")
            trainer.train(1, [1e-3])
        assert torch.equal(quiet, weights(trainer))


def test_the_global_generators_are_left_alone() -> None:
    torch_state = torch.random.get_rng_state()
    numpy_state = str(np.random.get_state())  # noqa: NPY002 - the global one
    trainer = small_trainer(2, dropout=0.2)
    trainer.reset([0, 1], [0, 1])
    trainer.train(2, [1e-3, 1e-3])
    trainer.evaluate()
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002


@every_architecture
def test_snapshot_restore_and_the_same_three_chunks_again(architecture: str) -> None:
    trainer = small_trainer(3, dropout=0.1, architecture=architecture)
    trainer.reset(range(3), [1, 2, 3])
    trainer.train(5, [1e-3] * 3)
    saved = trainer.snapshot(range(3))
    first, after = curve(trainer, 3, 1e-3), trainer.state_dict()
    trainer.restore(range(3), saved)
    assert np.array_equal(first, curve(trainer, 3, 1e-3))
    for name, value in trainer.state_dict().items():
        assert torch.equal(value, after[name]), name


def test_restoring_one_member_leaves_the_others(tmp_path: Any) -> None:
    trainer = small_trainer(3)
    trainer.reset(range(3), [1, 2, 3])
    saved = trainer.snapshot([1])
    start = weights(trainer)
    trainer.train(3, [1e-2] * 3)
    moved = weights(trainer)
    trainer.restore([1], saved)
    assert torch.equal(weights(trainer)[1], start[1])
    assert torch.equal(weights(trainer)[[0, 2]], moved[[0, 2]])
    assert trainer.iteration.tolist() == [3, 0, 3]


def test_restoring_without_rewinding_keeps_the_clock() -> None:
    trainer = small_trainer()
    trainer.reset([0], [1])
    start = trainer.snapshot([0])
    first = trainer.train(3, [1e-2])
    trainer.restore([0], start, rewind=False)
    assert torch.equal(weights(trainer), start["parameters"])
    assert trainer.iteration.tolist() == [3]
    assert trainer.state_dict()["updates"].tolist() == [0]
    # The same weights meet other batches now: the data stream has moved on.
    assert not np.array_equal(first, trainer.train(3, [1e-2]))


def test_a_run_continues_from_disk_without_pickle(tmp_path: Any) -> None:
    trainer = small_trainer(2)
    trainer.reset([0, 1], [1, 2])
    trainer.train(5, [1e-3, 1e-2])
    save_file(trainer.state_dict(), tmp_path / "run.safetensors")
    expected = curve(trainer, 2, 1e-3)
    fresh = small_trainer(2)
    fresh.load_state_dict(load_file(tmp_path / "run.safetensors"))
    assert np.array_equal(expected, curve(fresh, 2, 1e-3))


def test_a_state_of_another_shape_is_refused() -> None:
    trainer = small_trainer()
    state = small_trainer(n_embd=32).state_dict()
    with pytest.raises(ValueError, match=r"state\['parameters'\] must have shape"):
        trainer.load_state_dict(state)
    del state["iteration"]
    with pytest.raises(ValueError, match="got None"):
        trainer.load_state_dict({k: v for k, v in state.items() if k == "exp_avg"})


def test_members_may_train_for_different_numbers_of_updates() -> None:
    population = small_trainer(3)
    population.reset(range(3), [1, 2, 3])
    losses = population.train([4, 0, 7], [1e-3] * 3)
    assert np.isnan(losses[1])
    assert population.iteration.tolist() == [4, 0, 7]
    for member, (seed, count) in enumerate([(1, 4), (2, 0), (3, 7)]):
        alone = small_trainer()
        alone.reset([0], [seed])
        alone.train(count, [1e-3])
        torch.testing.assert_close(
            weights(population)[member], weights(alone)[0], rtol=0, atol=1e-5
        )


# ------------------------------------------------------------- the action is real


class RateRecorder:
    """Reads the rate off every update from outside: before, after, and moments."""

    def __init__(self, trainer: PopulationTrainer) -> None:
        self.inside: list[list[float]] = []
        self.implied: list[list[float]] = []
        self._step = trainer.optimizer.step
        object.__setattr__(trainer.optimizer, "step", self)
        self._hyper = trainer.optimizer

    def __call__(self, state: dict[str, torch.Tensor], *arguments: Any) -> Any:
        before = state["parameters"].double()
        result = self._step(state, *arguments)
        self.inside.append(state["learning_rate"].tolist())
        # AdamW: w' = w - rate * (decay * w + m_hat / (sqrt(v_hat) + eps)); solve it.
        hyper, count = self._hyper, state["updates"][:, None].double()
        mean = state["exp_avg"].double() / (1 - hyper.beta1**count)
        square = state["exp_avg_sq"].double() / (1 - hyper.beta2**count)
        direction = mean / (square.sqrt() + 1e-8)
        direction[:, : hyper.n_decayed] += (
            hyper.weight_decay * before[:, : hyper.n_decayed]
        )
        change = before - state["parameters"].double()
        ratio = (change * direction).sum(1) / (direction * direction).sum(1)
        self.implied.append(ratio.tolist())
        return result


def check_rates(trainer: PopulationTrainer, rates: FloatArray) -> None:
    """The optimizer held, and the weights moved by, `rates` at every update."""
    recorder = RateRecorder(trainer)
    trainer.reset(range(trainer.size), range(trainer.size))
    half = rates.shape[1] // 2
    for chunk in (rates[:, :half], rates[:, half:]):
        recorder.inside.clear()
        recorder.implied.clear()
        trainer.train(chunk.shape[1], chunk)
        inside, implied = (
            # Members train together, or one after the other.
            np.array(seen).T if len(seen[0]) > 1 else np.reshape(seen, chunk.shape)
            for seen in (recorder.inside, recorder.implied)
        )
        np.testing.assert_array_equal(inside, chunk)
        np.testing.assert_allclose(implied, chunk, rtol=2e-2)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_every_update_uses_the_rate_it_was_given(size: int) -> None:
    factors = schedule_factor("one_cycle", np.arange(12), 12, 3)
    rates = np.geomspace(1e-3, 1e-2, size)[:, None] * factors
    check_rates(small_trainer(size), rates)


@pytest.mark.parametrize("mutation", ["ignored", "frozen", "doubled"])
def test_the_check_of_the_rate_can_fail(
    mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's bug, planted: the rate in the optimizer is not the one asked for."""
    trainer = small_trainer()
    rates = 1e-3 * schedule_factor("linear", np.arange(8), 8, 0)[None]
    run = trainer._run

    def mutated(state: Any, wanted: FloatArray, *rest: Any, **more: Any) -> Any:
        wrong = {
            "ignored": np.full_like(wanted, 1e-3),
            "frozen": np.repeat(wanted[:, :1], wanted.shape[1], axis=1),
            "doubled": 2 * wanted,
        }
        return run(state, wrong[mutation], *rest, **more)

    monkeypatch.setattr(trainer, "_run", mutated)
    with pytest.raises(AssertionError):
        check_rates(trainer, rates)


def test_a_rate_of_zero_moves_nothing() -> None:
    trainer = small_trainer()
    trainer.reset([0], [0])
    before = weights(trainer)
    trainer.train(3, [0.0])
    assert torch.equal(before, weights(trainer))


# ---------------------------------------------------------------------- divergence


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("gpt", 3), ("gpt", 8), ("lstm", 3), ("conv", 3), ("conv", 8)],
)
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 1e-2)]
)
def test_a_diverging_member_is_frozen_and_its_neighbours_do_not_notice(
    size: int, precision: str, tolerance: float, architecture: str
) -> None:
    options = {"precision": precision, "architecture": architecture}
    alone = small_trainer(2, **options)
    alone.reset([0, 1], [1, 3])
    expected = curve(alone, 6, 1e-3)
    population = small_trainer(size, **options)
    population.reset(range(size), range(1, 1 + size))
    losses = []
    for _ in range(6):
        train = population.train(5, [1e-3, 1e3, *[1e-3] * (size - 2)])
        losses.append((*train[[0, 2]], *population.evaluate()[[0, 2]]))
    assert np.flatnonzero(population.diverged()).tolist() == [1]
    np.testing.assert_allclose(np.array(losses), expected, atol=tolerance)
    frozen = weights(population)[1].clone()
    population.train(2, [1e-3] * size)
    assert torch.equal(frozen, weights(population)[1])
    population.reset([1], [2])
    assert not population.diverged().any()


# ------------------------------------------------------------------ models and errors


@every_architecture
def test_the_trained_model_can_be_taken_out(architecture: str) -> None:
    trainer = small_trainer(2, architecture=architecture)
    trainer.reset([0, 1], [0, 1])
    trainer.train(3, [1e-2, 1e-2])
    model = trainer.model(1)
    sample = model.generate(
        torch.zeros(1, 1, dtype=torch.int64),
        8,
        generator=torch.Generator().manual_seed(0),
    )
    assert sample.shape == (1, 9)
    with torch.no_grad():
        next(model.parameters()).zero_()  # a copy: the run does not notice
    assert np.isfinite(trainer.train(1, [1e-3, 1e-3])).all()


@every_architecture
def test_bfloat16_stays_close_to_float32(architecture: str) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        trainer = small_trainer(precision=precision, architecture=architecture)
        trainer.reset([0], [0])
        trainer.train(20, [3e-3])
        assert weights(trainer).dtype == torch.float32
        losses.append(trainer.evaluate()[0])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


@pytest.mark.parametrize(
    ("iterations", "rates", "message"),
    [
        (-1, [1e-3], "iterations must be integers >= 0, got -1"),
        (1.5, [1e-3], "iterations must be integers"),
        (1, [-1e-3], "learning_rate must be finite and not negative, got .*-0.001"),
        (1, [math.nan], "learning_rate must be finite"),
        (1, [1e-3, 1e-3], r"learning_rate must have shape \(1,\)"),
        (3, [[1e-3, 1e-3]], r"n >= 3"),
    ],
)
def test_a_bad_chunk_is_refused(
    iterations: Any, rates: Sequence[Any], message: str
) -> None:
    trainer = small_trainer()
    trainer.reset([0], [0])
    with pytest.raises(ValueError, match=message):
        trainer.train(iterations, rates)
    assert trainer.iteration.tolist() == [0]


def test_construction_and_lookup_errors() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        small_trainer(0)
    with pytest.raises(ValueError, match="needs at least 2"):
        trainer_on(np.zeros(1, dtype=np.uint8))
    with pytest.raises(ValueError, match="too short: its training split"):
        small_trainer(block_size=2**20)
    with pytest.raises(ValueError, match="2 members but 1 seeds"):
        small_trainer(2).reset([0, 1], [0])
    with pytest.raises(ValueError, match="split must be one of"):
        small_trainer().evaluate("dev")
