"""The users' tasks: one half to choose a controller by, the other only to judge it.

The judged half was committed before any controller ran on it. Each task takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it
from torch.optim import Optimizer

from benchmarks.controller.users import data, models

CONTEXT = 32  # characters
BATCH_SIZE = 64
Batch = Any  # what a task's `draw` returns and its `loss` takes
MakeOptimizers = Callable[[nn.Module, float], list[Optimizer]]


@dataclass(frozen=True)
class Training:
    """One training run, before its first update.

    Attributes:
        model: The model, in training mode.
        draw: Returns the next training batch.
        loss: Returns the mean loss of a batch.
        validation: The batch that `evaluate` uses.
        make_optimizers: Returns the optimizers at a learning rate.
        max_norm: Clips the norm of the gradients; `None` does not.
    """

    model: nn.Module
    draw: Callable[[], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    validation: Batch
    make_optimizers: MakeOptimizers
    max_norm: float | None = None

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the validation loss."""
        self.model.eval()
        loss = float(self.loss(self.model, self.validation))
        self.model.train()
        return loss


@dataclass(frozen=True)
class UserTask:
    """A task of the benchmark.

    Attributes:
        name: Names the task in results.
        iterations: Updates of a run.
        middle_lr: Middle of the grid of learning rates, near the best constant one.
        make: Makes the training of a seed.
        evaluations: Evaluations of a run.
        floor: Subtracted from the loss before ratios are taken.
        is_log: Whether the loss is a mean of logarithms that can be below zero: its
            differences are compared, not its ratios.
    """

    name: str
    iterations: int
    middle_lr: float
    make: Callable[[int], Training]
    evaluations: int = 50
    floor: float = 0.0
    is_log: bool = False

    def excess(self, loss: float, best: float) -> float:
        """Return how far `loss` is above `best`: log ratio, or difference."""
        if not math.isfinite(loss):
            return math.inf
        if self.is_log:
            return loss - best
        return math.log((loss - self.floor) / (best - self.floor))


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that train."""
    return [p for p in model.parameters() if p.requires_grad]


def adamw(model: nn.Module, learning_rate: float) -> list[Optimizer]:
    """Return AdamW over all parameters that train."""
    return [torch.optim.AdamW(trainable(model), lr=learning_rate)]


def sgd(model: nn.Module, learning_rate: float) -> list[Optimizer]:
    """Return SGD with momentum 0.9."""
    return [torch.optim.SGD(trainable(model), lr=learning_rate, momentum=0.9)]


def muon_and_adamw(model: nn.Module, learning_rate: float) -> list[Optimizer]:
    """Return Muon for the blocks' matrices, and AdamW at a tenth of its rate."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "block" in n]
    others = [
        p for n, p in model.named_parameters() if p.dim() != 2 or "block" not in n
    ]
    return [
        torch.optim.Muon(matrices, lr=learning_rate),
        torch.optim.AdamW(others, lr=learning_rate / 10.0),
    ]


def classification(
    make_model: Callable[[], nn.Module],
    seed: int,
    make_optimizers: MakeOptimizers = adamw,
    batch_size: int = BATCH_SIZE,
) -> Training:
    """Classify scikit-learn's digits."""
    return _table(
        data.digits(), F.cross_entropy, make_model, seed, make_optimizers, batch_size
    )


def _table(
    splits: tuple[data.Split, data.Split],
    loss: Callable[[Tensor, Tensor], Tensor],
    make_model: Callable[[], nn.Module],
    seed: int,
    make_optimizers: MakeOptimizers,
    batch_size: int,
) -> Training:
    torch.manual_seed(seed)
    generator = _generator(seed)
    (inputs, targets), validation = splits

    def draw() -> Batch:
        rows = torch.randint(len(inputs), (batch_size,), generator=generator)
        return inputs[rows], targets[rows]

    def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model(batch[0]), batch[1])

    return Training(make_model(), draw, batch_loss, validation, make_optimizers)


def autoencoding(seed: int) -> Training:
    """Reconstruct digits; mean squared error."""
    (train, _), (validation, _) = data.digits()
    splits = (train, train), (validation, validation)
    return _table(splits, F.mse_loss, models.autoencoder, seed, adamw, BATCH_SIZE)


def diabetes(seed: int) -> Training:
    """Predict the progress of diabetes in its raw unit: losses of some thousands."""
    model = partial(models.mlp, 10, 1, 64)
    return _table(data.diabetes(), F.mse_loss, model, seed, adamw, 32)


def regression(seed: int, unit: float, offset: float = 0.0) -> Training:
    """Regress a sum of sines in an odd unit, from fresh points; mean squared error."""
    torch.manual_seed(seed)
    draw = partial(data.sines, BATCH_SIZE, _generator(seed), unit)
    validation = data.sines(2_000, _generator(-1), unit)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1]) + offset

    return Training(models.mlp(4, 1), draw, loss, validation, adamw)


def density(seed: int) -> Training:
    """Fit a flow to two rings: the loss falls below zero."""
    torch.manual_seed(seed)
    draw = partial(data.rings, 128, _generator(seed))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch).mean()  # type: ignore[no-any-return]

    validation = data.rings(2_000, _generator(-1))
    return Training(models.Flow(), draw, loss, validation, adamw, max_norm=1.0)


def sources(seed: int) -> Training:
    """Tell windows of 60 characters of three texts apart."""
    torch.manual_seed(seed)
    generator = _generator(seed)
    texts = [data.text(name) for name in ("shakespeare", "text8", "javascript.txt")]

    def draw() -> Batch:
        parts = [data.windows(train, 24, 59, generator) for train, _ in texts]
        return torch.cat(parts), torch.arange(3).repeat_interleave(24)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    parts = [data.even_windows(held, 300, 59) for _, held in texts]
    validation = torch.cat(parts), torch.arange(3).repeat_interleave(300)
    return Training(models.BagOfTrigrams(), draw, loss, validation, adamw)


def language(
    make_model: Callable[[], nn.Module],
    name: str,
    seed: int,
    make_optimizers: MakeOptimizers = adamw,
    batch_size: int = 32,
) -> Training:
    """Predict the next characters of a text; nats per character."""
    torch.manual_seed(seed)
    generator = _generator(seed)
    train, held = data.text(name)

    def draw() -> Batch:
        return data.windows(train, batch_size, CONTEXT, generator)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch[:, :-1])
        logits = getattr(output, "logits", output)  # of Hugging Face's models
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    validation = data.even_windows(held, 250, CONTEXT)
    return Training(make_model(), draw, loss, validation, make_optimizers, max_norm=1.0)


def gpt2() -> nn.Module:
    """Return Hugging Face's GPT-2, small."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=data.VOCABULARY,
        n_positions=CONTEXT,
        n_embd=64,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config)


def llama() -> nn.Module:
    """Return Hugging Face's Llama, small: RoPE, RMSNorm, SwiGLU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=data.VOCABULARY,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )
    return LlamaForCausalLM(config)


@cache
def _pretrained(name: str) -> dict[str, Tensor]:
    """Return the weights of a GPT after 600 updates on a text, by linear decay."""
    training = language(models.GPT, name, seed=999)
    (optimizer,) = training.make_optimizers(training.model, 4e-3)
    for iteration in range(600):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1.0 - iteration / 600)
        optimizer.zero_grad()
        loss = training.loss(training.model, training.draw())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return training.model.state_dict()


def _fine_tuned(adapted: bool) -> nn.Module:
    """Return a GPT trained on Shakespeare; with low-rank adapters if `adapted`."""
    state = torch.random.get_rng_state()  # pretraining must not move the run's stream
    weights = _pretrained("shakespeare")
    torch.random.set_rng_state(state)
    model: nn.Module = models.GPT()
    model.load_state_dict(weights)
    if adapted:
        from peft import LoraConfig, get_peft_model

        layers = ["qkv", "proj", "up", "down"]
        config = LoraConfig(r=4, lora_alpha=8, target_modules=layers)
        model = get_peft_model(model, config)
    return model


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 + seed)


def by_name(tasks: Iterable[UserTask]) -> dict[str, UserTask]:
    """Return the tasks by their names."""
    return {task.name: task for task in tasks}


_mlp = partial(models.mlp, 64, 10)
_tuned = partial(_fine_tuned, adapted=False)
_lora = partial(_fine_tuned, adapted=True)
_gru, _lstm = (partial(models.RecurrentLM, cell) for cell in (nn.GRU, nn.LSTM))
_deep = partial(models.GPT, 32, 5)

CHOOSING = by_name([
    UserTask("mlp", 400, 8e-3, partial(classification, _mlp)),
    UserTask("mlp-long", 1500, 8e-3, partial(classification, _mlp)),
    UserTask("cnn", 250, 1e-2, partial(classification, models.conv_net)),
    UserTask(
        "cnn-sgd",
        250,
        5e-2,
        partial(classification, models.conv_net, make_optimizers=sgd),
    ),
    UserTask("vit", 400, 4e-3, partial(classification, models.ViT)),
    UserTask("gru", 400, 1e-2, partial(language, _gru, "shakespeare")),
    UserTask("gpt", 400, 5e-3, partial(language, models.GPT, "shakespeare")),
    UserTask(
        "gpt-deep", 200, 5e-3, partial(language, _deep, "shakespeare", batch_size=16)
    ),
    UserTask("autoencoder", 400, 4e-3, autoencoding),
    UserTask("sines-100", 500, 1e-2, partial(regression, unit=100.0)),
    UserTask("lora", 300, 1e-2, partial(language, _lora, "text8")),
])  # fmt: skip

JUDGED = by_name([
    UserTask("lstm", 400, 1e-2, partial(language, _lstm, "javascript.txt")),
    UserTask("mlp-sgd", 400, 1e-1, partial(classification, _mlp, make_optimizers=sgd)),
    UserTask("density", 500, 5e-3, density, is_log=True),
    UserTask("sources", 400, 1e-2, sources),
    UserTask("diabetes", 400, 1e-2, diabetes),
    UserTask(
        "sines-small",
        500,
        1e-2,
        partial(regression, unit=1e-2, offset=-1.0),
        floor=-1.0,
    ),
    UserTask("gpt2", 300, 5e-3, partial(language, gpt2, "text8")),
    UserTask("llama", 300, 5e-3, partial(language, llama, "javascript.txt")),
    UserTask(
        "muon",
        300,
        2e-2,
        partial(language, models.GPT, "text8", make_optimizers=muon_and_adamw),
    ),
    UserTask("tune-near", 300, 1e-3, partial(language, _tuned, "text8")),
    UserTask("tune-far", 300, 3e-3, partial(language, _tuned, "javascript.txt")),
    UserTask("lora-far", 300, 1e-2, partial(language, _lora, "javascript.txt")),
    UserTask(
        "vit-epochs",
        400,
        4e-3,
        partial(classification, models.ViT, batch_size=16),
        evaluations=3,
    ),
])  # fmt: skip
