"""Every architecture: causality, initial weights, dropout, cached generation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lr_gym.config import ARCHITECTURES
from lr_gym.models import build_model
from lr_gym.models.language_model import Dropout, LanguageModel, initial_parameters
from lr_gym.random_streams import fold_in
from tests.helpers.small import small_config

pytestmark = pytest.mark.parametrize("architecture", ARCHITECTURES)


def make_model(architecture: str, seed: int = 0, **overrides: Any) -> LanguageModel:
    settings = {"n_layer": 2, "n_embd": 32} | overrides
    config = small_config(architecture=architecture, **settings)
    model = build_model(config, vocab_size=11)
    generator = torch.Generator().manual_seed(seed)
    model.load_state_dict(initial_parameters(model, generator))
    return model


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def test_a_position_sees_the_past_only(architecture: str) -> None:
    model = make_model(architecture)
    tokens = random_tokens(2, 16)
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 11
    difference = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
    assert torch.all(difference[:9] == 0)
    assert torch.all(difference[9:] > 0)


def test_every_position_of_a_window_sees_its_first_character(architecture: str) -> None:
    model = make_model(architecture)
    tokens = random_tokens(2, 16)
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 11
    difference = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
    assert torch.all(difference > 0)


def test_an_untrained_model_guesses_evenly(architecture: str) -> None:
    logits = make_model(architecture, n_embd=64)(random_tokens(8, 16))
    targets = random_tokens(8, 16, seed=1)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(math.log(11), abs=0.1)


def test_the_initial_weights_depend_only_on_the_generator(architecture: str) -> None:
    before = torch.random.get_rng_state()
    with torch.device("meta"):
        model = build_model(small_config(architecture=architecture), vocab_size=11)
    first, same, other = (
        initial_parameters(model, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    for name, weight in first.items():
        assert torch.equal(weight, same[name])
        assert torch.equal(weight, other[name]) == (weight.ndim == 1)


def test_dropout_follows_its_key(architecture: str) -> None:
    model = make_model(architecture, dropout=0.3)
    tokens = random_tokens(2, 16)
    keys = [
        fold_in(torch.tensor(k), torch.arange(model.dropout_sites)) for k in (5, 5, 6)
    ]
    first, same, other = (model(tokens, key) for key in keys)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(model(tokens), model(tokens))


def test_every_dropout_layer_has_its_own_key(architecture: str) -> None:
    model = make_model(architecture, dropout=0.3)
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    assert [layer.probability for layer in layers] == [0.3] * len(layers)
    assert sorted(layer.site for layer in layers) == list(range(model.dropout_sites))


@pytest.mark.parametrize("bias", [False, True])
def test_cached_logits_equal_those_of_one_pass(architecture: str, bias: bool) -> None:
    model = make_model(architecture, bias=bias)
    tokens = random_tokens(3, 16)
    whole = model(tokens)
    caches = model.empty_caches(3)
    with torch.no_grad():
        parts = [model(tokens[:, :5], None, caches, 0)]
        parts += [model(tokens[:, t : t + 1], None, caches, t) for t in range(5, 16)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_generation_is_the_argmax_chain_at_top_k_one(architecture: str) -> None:
    model = make_model(architecture)
    prompt = random_tokens(2, 3)
    expected = prompt
    for _ in range(10):
        best = model(expected)[:, -1].argmax(dim=1, keepdim=True)
        expected = torch.cat((expected, best), dim=1)
    assert torch.equal(model.generate(prompt, 10, top_k=1), expected)


def test_generation_goes_beyond_the_window_and_follows_its_generator(
    architecture: str,
) -> None:
    model = make_model(architecture)
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
    architecture: str, arguments: dict[str, Any], message: str
) -> None:
    arguments = {"tokens": random_tokens(1, 2)} | arguments
    with pytest.raises(ValueError, match=message):
        make_model(architecture).generate(**arguments)
