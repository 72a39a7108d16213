"""The model: size, causality, initialization, dropout, cached generation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lr_gym.models.gpt import GPT, initial_parameters
from lr_gym.random_streams import fold


def make_model(seed: int = 0, **overrides: object) -> GPT:
    settings = {
        "vocab_size": 11,
        "block_size": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
    }
    model = GPT(**(settings | overrides))  # type: ignore[arg-type]  # ints and floats
    generator = torch.Generator().manual_seed(seed)
    model.load_state_dict(initial_parameters(model, generator))
    return model


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def test_the_papers_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = GPT(vocab_size=65, block_size=256, n_layer=6, n_head=6, n_embd=384)
    total = sum(p.numel() for p in model.parameters())
    # nanoGPT reports 10.65 M, which leaves out the position embedding.
    assert total - model.position_embedding.weight.numel() == 10_646_784


def test_a_position_sees_the_past_only() -> None:
    model = make_model()
    tokens = random_tokens(2, 16)
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 11
    difference = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
    assert torch.all(difference[:9] == 0)
    assert torch.all(difference[9:] > 0)


def test_initialization_follows_gpt2() -> None:
    model = make_model(n_embd=128, n_head=4, vocab_size=64, bias=True)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert torch.all(weight == 0)
        elif weight.ndim == 1:
            assert torch.all(weight == 1)
        else:
            std = 0.02 / math.sqrt(4) if name.endswith("proj.weight") else 0.02
            assert weight.std().item() == pytest.approx(std, rel=0.1)


def test_initialization_depends_on_its_generator_alone() -> None:
    before = torch.random.get_rng_state()
    with torch.device("meta"):
        model = GPT(vocab_size=11, block_size=8, n_layer=1, n_head=1, n_embd=8)
    first, same, other = (
        initial_parameters(model, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    name = "token_embedding.weight"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])


def test_dropout_follows_its_key() -> None:
    model = make_model(dropout=0.3)
    tokens = random_tokens(2, 16)
    keys = [fold(torch.tensor(k), torch.arange(model.dropout_sites)) for k in (5, 5, 6)]
    first, same, other = (model(tokens, key) for key in keys)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(model(tokens), model(tokens))


def test_dropout_keeps_the_expectation() -> None:
    model = make_model(dropout=0.5)
    x = torch.ones(200, 200)
    dropped = model.embedding_dropout(x, torch.tensor([3]))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)


def test_cached_logits_equal_those_of_one_pass() -> None:
    model = make_model()
    tokens = random_tokens(3, 16)
    whole = model(tokens)
    caches = model._empty_caches(3)
    with torch.no_grad():
        parts = [model(tokens[:, :5], None, caches, 0)]
        parts += [model(tokens[:, t : t + 1], None, caches, t) for t in range(5, 16)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_generation_is_the_argmax_chain_at_top_k_one() -> None:
    model = make_model()
    prompt = random_tokens(2, 3)
    expected = prompt
    for _ in range(10):
        best = model(expected)[:, -1].argmax(dim=1, keepdim=True)
        expected = torch.cat((expected, best), dim=1)
    assert torch.equal(model.generate(prompt, 10, top_k=1), expected)


def test_generation_goes_beyond_the_context_and_follows_its_generator() -> None:
    model = make_model()
    prompt = random_tokens(1, 20)  # longer than block_size
    first, same = (
        model.generate(prompt, 50, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert first.shape == (1, 70)
    assert torch.equal(first[:, :20], prompt)
    assert torch.equal(first, same)
    assert first.max() < 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be >= 0, got -1"),
        ({"max_new_tokens": 1, "temperature": 0.0}, "temperature must be above 0"),
        ({"max_new_tokens": 1, "top_k": 0}, "top_k must be at least 1"),
        ({"max_new_tokens": 1, "tokens": torch.zeros(1, 0).long()}, "tokens must be"),
    ],
)
def test_generation_refuses_bad_arguments(
    arguments: dict[str, object], message: str
) -> None:
    arguments = {"tokens": random_tokens(1, 2)} | arguments
    with pytest.raises(ValueError, match=message):
        make_model().generate(**arguments)  # type: ignore[arg-type]  # that is the point
