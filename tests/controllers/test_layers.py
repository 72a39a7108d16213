"""The controller with the layers, number formats and optimizers that people train.

Every case must end close to the best of three constant learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lr_gym import load_corpus
from lr_gym.controllers import ControllerLR

UPDATES = 300
CONTEXT = 8
TOKENS = torch.from_numpy(load_corpus("markov").train.astype("int64"))
SYMBOLS = int(TOKENS.max()) + 1


class Characters(nn.Module):
    """Predicts the next character from an embedding of the last ones."""

    def __init__(self, body: nn.Module, *, zero_head: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, 16)
        self.body = body
        self.head = nn.Linear(32, SYMBOLS)
        if zero_head:
            nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embed(tokens)))  # type: ignore[no-any-return]


class LowRank(nn.Module):
    """A frozen linear layer with an adapter that starts at zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Linear(inputs, 4, bias=False)
        self.up = nn.Linear(4, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))  # type: ignore[no-any-return]


class Last(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0][:, -1]  # type: ignore[no-any-return]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16 * CONTEXT, 32), nn.ReLU())


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(CONTEXT, 16, 3, padding=1),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 32),
    )


def plain() -> nn.Module:
    return Characters(mlp())


def partly_frozen() -> nn.Module:
    model = Characters(mlp())
    model.embed.requires_grad_(False)
    return model


def with_unused() -> nn.Module:
    model = Characters(mlp())
    model.unused = nn.Linear(64, 64)  # no gradient
    model.zero = nn.Parameter(torch.randn(64, 64))  # a gradient of zero
    model.register_forward_hook(lambda m, _, out: out + 0.0 * m.zero.sum())
    return model


def tied() -> nn.Module:
    model = Characters(mlp())
    model.body = nn.Sequential(mlp(), nn.Linear(32, 16))
    model.head = nn.Linear(16, SYMBOLS)
    model.head.weight = model.embed.weight
    return model


def adapted() -> nn.Module:
    return Characters(nn.Sequential(nn.Flatten(), LowRank(16 * CONTEXT, 32), nn.ReLU()))


class Unigram(nn.Module):
    """Only a vector of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(SYMBOLS))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits.expand(len(tokens), -1)


class Bigram(nn.Module):
    """Only a table of logits, with sparse or dense gradients."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(SYMBOLS, SYMBOLS, sparse=sparse)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens[:, -1])  # type: ignore[no-any-return]


def adamw(model: nn.Module, rate: float, **settings: Any) -> torch.optim.Optimizer:
    weights = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(weights, lr=rate, **settings)


def sgd(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=10.0 * rate, momentum=0.9)


def head_and_backbone(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """A head at the rate, and a backbone at a hundredth of it."""
    head = list(model.get_submodule("head").parameters())
    rest = [p for n, p in model.named_parameters() if not n.startswith("head")]
    groups = [{"params": rest, "lr": rate / 100.0}, {"params": head, "lr": rate}]
    return torch.optim.AdamW(groups)


def one_group_at_zero(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    optimizer = head_and_backbone(model, rate)
    optimizer.param_groups[0]["lr"] = 0.0
    return optimizer


@dataclass(frozen=True)
class Case:
    """What is trained."""

    model: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer] = adamw


CASES = {
    "perceptron": Case(plain),
    "SGD with momentum": Case(plain, sgd),
    "zero-initialized head": Case(lambda: Characters(mlp(), zero_head=True)),
    "low-rank adapter": Case(adapted),
    "frozen embedding": Case(partly_frozen),
    "unused weights": Case(with_unused),
    "tied weights": Case(tied),
    "convolution and batch norm": Case(lambda: Characters(conv())),
    "GRU": Case(lambda: Characters(Last(nn.GRU(16, 32, batch_first=True)))),
    "vectors only": Case(Unigram),
    "embedding only": Case(Bigram),
    "backbone at a hundredth": Case(plain, head_and_backbone),
    "a group at 0": Case(plain, one_group_at_zero),
    "foreach": Case(plain, lambda m, r: adamw(m, r, foreach=True)),
    "fused": Case(plain, lambda m, r: adamw(m, r, fused=True)),
    "rate as a tensor": Case(plain, lambda m, r: adamw(m, torch.tensor(r))),  # type: ignore[arg-type]  # torch allows it
}


def batches(seed: int, count: int) -> Iterable[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        starts = torch.randint(len(TOKENS) - CONTEXT, (64,), generator=generator)
        windows = TOKENS[starts[:, None] + torch.arange(CONTEXT + 1)]
        yield windows[:, :-1], windows[:, -1]


@torch.no_grad()
def evaluate(model: nn.Module) -> float:
    losses = [
        nn.functional.cross_entropy(model(x).float(), y) for x, y in batches(9, 8)
    ]
    return float(torch.stack(losses).mean())


def train(case: Case, rate: float, *, controlled: bool) -> tuple[float, list[float]]:
    torch.manual_seed(0)
    model = case.model()
    optimizer = case.optimizer(model, rate)
    if controlled:
        ControllerLR(optimizer, UPDATES)
    rates = []
    for x, y in batches(0, UPDATES):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        rates.append(float(optimizer.param_groups[-1]["lr"]))
        optimizer.step()
    return evaluate(model), rates


QUICK = ("perceptron", "low-rank adapter", "vectors only", "embedding only", "fused")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in CASES],
)
def test_close_to_the_best_constant_rate(name: str) -> None:
    case = CASES[name]
    best = min(train(case, rate, controlled=False)[0] for rate in (3e-3, 0.012, 0.05))
    losses = [train(case, rate, controlled=True)[0] for rate in (3e-4, 0.3)]
    assert max(losses) <= best + 0.1


# --------------------------------------------------------------------- number formats


def test_weights_in_bfloat16() -> None:
    def half() -> nn.Module:
        return plain().bfloat16()

    single, _ = train(Case(plain), 1e-2, controlled=True)
    loss, _ = train(Case(half), 1e-2, controlled=True)
    low, _ = train(Case(half), 3e-4, controlled=True)
    assert loss <= single + 0.1
    assert low <= single + 0.1


class UnderAutocast(Characters):
    """Computes in bfloat16."""

    def forward(self, tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(tokens).float()


def test_autocast() -> None:
    single, _ = train(Case(plain), 1e-2, controlled=True)
    loss, _ = train(Case(lambda: UnderAutocast(mlp())), 1e-2, controlled=True)
    assert loss <= single + 0.05


def test_updates_that_a_grad_scaler_skips_do_not_count() -> None:
    def run(bad: set[int]) -> tuple[list[float], int]:
        torch.manual_seed(0)
        model = plain()
        optimizer = adamw(model, 1e-2, fused=True)  # skips inside its own step
        controller = ControllerLR(optimizer, UPDATES)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        good = iter(batches(0, UPDATES))
        for update in range(60):
            optimizer.zero_grad()
            x, y = next(good)
            loss = nn.functional.cross_entropy(model(x), y)
            if update in bad:
                loss = loss * math.inf
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
        return controller.used_learning_rates().tolist(), controller.last_epoch

    rates, count = run({3, 12})
    assert count == 58
    assert all(map(math.isfinite, rates))
    assert max(rates) > 1e-3


def test_sparse_gradients_alone_are_refused() -> None:
    model = Bigram(sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=1e-2)
    ControllerLR(optimizer, UPDATES)
    x, y = next(iter(batches(0, 1)))
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="no weight with a dense gradient"):
        optimizer.step()  # type: ignore[no-untyped-call]
