"""Trainings of one small model in two processes, which a test compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from lr_gym.controllers import ControllerLR, save_state
from lr_gym.controllers.update_meter import UpdateMeter

PROCESSES = 2
UPDATES = 60
INTERVAL = 5  # updates between evaluations
RELOADED = 30  # the update before which the controller loads its own state
SPOILED = 8  # the evaluation that is made worse in the last process
KINDS = ("ddp", "fsdp")


class TiedModel(nn.Module):
    """A regression; the last layer's shards are empty in all processes but one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 15)  # uneven shards
        self.second = nn.Linear(15, 15)
        self.third = nn.Linear(15, 15)
        self.third.weight = self.second.weight
        self.last = nn.Linear(15, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(x))))
        output: Tensor = self.last(torch.tanh(self.third(hidden)))
        return output


@dataclass
class Result:
    """What one process saw; ready for `torch.save`."""

    rates: list[float] = field(default_factory=list)
    undone: list[bool] = field(default_factory=list)  # per evaluation
    good: dict[str, Tensor] = field(default_factory=dict)  # at the last good evaluation
    after: dict[str, Tensor] = field(default_factory=dict)  # the undo
    weights: dict[str, Tensor] = field(default_factory=dict)  # at the end


def train(kind: str, process: int = 0, processes: int = 1, *, spoil: bool) -> Result:
    """Train on this process's shard of all batches; `spoil` forces an undo."""
    torch.manual_seed(0)  # initialises the layers
    model: nn.Module = TiedModel()
    if kind == "ddp":
        model = DistributedDataParallel(model)
    if kind == "fsdp":
        fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    controller = ControllerLR(optimizer, UPDATES, undo=model)
    training, validation = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    result = Result()
    held_out = _shard(_inputs(validation, 64), process, processes)
    for update in range(UPDATES):
        if update % INTERVAL == 0:
            worse = 1e3 if update == SPOILED * INTERVAL and spoil else 0.0
            loss = float(_loss(model, held_out).detach())
            # A single process stands for both.
            loss += worse * processes / PROCESSES if process == processes - 1 else 0.0
            record = controller.step(loss)
            result.undone.append(bool(record and record.undone))
            if result.undone[-1]:
                result.after = _whole_weights(model)
            elif not any(result.undone):
                result.good = _whole_weights(model)
        if update == RELOADED:
            controller.load_state_dict(controller.state_dict())
        batch = _shard(_inputs(training, 32), process, processes)
        optimizer.zero_grad()
        _loss(model, batch).backward()  # type: ignore[no-untyped-call]  # torch's own
        result.rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
    result.weights = _whole_weights(model)
    return result


def run_processes(folder: Path) -> list[dict[str, Any]]:
    """Return what each process measured; `folder` is empty."""
    spawn(_process, (str(folder),), nprocs=PROCESSES)  # type: ignore[no-untyped-call]  # torch's own
    return [
        torch.load(folder / f"{process}.pt", weights_only=True)
        for process in range(PROCESSES)
    ]


def _process(process: int, folder: str) -> None:
    """Do all work in one of the processes and write what it returns."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=process,
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )
    works: dict[str, Callable[[int], Any]] = {
        "trainings": trainings,
        "measures": measures,
        "unequal": unequal_weights,
        "saving": saving_parts,
    }
    content = {name: work(process) for name, work in works.items()}
    torch.save(content, Path(folder) / f"{process}.pt")
    dist.destroy_process_group()


def trainings(process: int) -> dict[str, Any]:
    """Return the results of all trainings, by kind and whether they are spoiled."""
    return {
        f"{kind}, spoiled" if spoil else kind: vars(
            train(kind, process, PROCESSES, spoil=spoil)
        )
        for kind in KINDS
        for spoil in (False, True)
    }


def measures(process: int) -> dict[str, list[float]]:
    """Return the measures of one update of equal numbers, by how they are split."""
    mesh = init_device_mesh("cpu", (PROCESSES,))
    splits = {"rows": Shard(0), "columns": Shard(1), "copies": Replicate()}
    return {"not split": measure_ones()} | {
        name: measure_ones(partial(_split, mesh=mesh, placement=placement))
        for name, placement in splits.items()
    }


def measure_ones(split: Callable[[Tensor], Tensor] = torch.clone) -> list[float]:
    """Return size, later and own of the second of two equal updates of ones."""
    weight = nn.Parameter(split(torch.ones(601, 301)))  # samples, and uneven shards
    weight.grad = split(torch.full((601, 301), 0.5))
    optimizer = torch.optim.SGD([weight], lr=0.25)
    meter = UpdateMeter(optimizer)
    measure = None
    for _ in range(2):
        meter.before()
        optimizer.step()
        measure = meter.after()
    assert measure is not None
    return [measure.size, measure.later, measure.own]


def unequal_weights(process: int) -> str:
    """Return the error where one process has no gradient of the second weight."""
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    for weight in weights[: 2 - process]:
        weight.grad = torch.ones(2, 2)
    optimizer = torch.optim.SGD(weights, lr=0.25)
    ControllerLR(optimizer, UPDATES)
    try:
        optimizer.step()
    except ValueError as error:
        return str(error)
    return "no error"


def saving_parts(process: int) -> str:
    """Return the error of saving a part of a tensor without pickle."""
    mesh = init_device_mesh("cpu", (PROCESSES,))
    part = distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)])
    try:
        save_state({"part": part}, f"{process}.safetensors")
    except TypeError as error:
        return str(error)
    return "no error"


def _split(tensor: Tensor, mesh: DeviceMesh, placement: Placement) -> Tensor:
    return distribute_tensor(tensor, mesh, [placement])


def _inputs(generator: torch.Generator, rows: int) -> Tensor:
    return torch.randn(rows, 6, generator=generator)


def _shard(rows: Tensor, process: int, processes: int) -> Tensor:
    return rows.chunk(processes)[process]


def _loss(model: nn.Module, x: Tensor) -> Tensor:
    error: Tensor = model(x) - torch.sin(2.0 * x[:, :1]) * x[:, 1:2]
    return error.square().mean()


def _whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all weights, also of those in other processes."""
    return {
        name.removeprefix("module."): (
            value.full_tensor() if isinstance(value, DTensor) else value
        )
        .detach()
        .clone()
        for name, value in model.state_dict().items()
    }
