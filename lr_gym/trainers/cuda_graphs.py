"""One update as one CUDA graph: a single call launches its hundreds of kernels.

A graph replays the same kernels on the same memory. So the population's state keeps its
memory, and the inputs of each update are copied into fixed tensors first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

Outputs: TypeAlias = tuple[Tensor, Tensor]  # losses and gradient norms, (E,) each
Step: TypeAlias = Callable[..., Outputs]
Capture: TypeAlias = Callable[
    [Callable[[], Outputs], torch.device], tuple[Callable[[], object], Outputs]
]
WARM_UPS = 3  # runs before a capture, as torch's notes on CUDA graphs ask for


def capture_cuda_graph(
    run: Callable[[], Outputs], device: torch.device
) -> tuple[Callable[[], object], Outputs]:
    """Capture `run` on `device`.

    All graphs of a device share one memory pool. That is safe because they run one
    after the other, and each one's outputs are read before the next one runs.

    Returns:
        A function that repeats `run`, and the outputs that it overwrites.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=_memory_pool(device), stream=stream):
            outputs = run()
    return graph.replay, outputs


@cache
def _memory_pool(device: torch.device) -> Any:  # noqa: ANN401 - torch's own handle
    return torch.cuda.graph_pool_handle()


@dataclass(frozen=True)
class _Captured:
    state: dict[str, Tensor]  # kept, so that its memory is not reused
    inputs: tuple[Tensor, ...]
    replay: Callable[[], object]
    outputs: Outputs


class GraphedStep:
    """A `TrainingStep` that is captured at its first call on a state, then replayed.

    Two states are the same if they share their memory: the same members of a trainer.
    """

    def __init__(self, step: Step, capture: Capture = capture_cuda_graph) -> None:
        """Wrap `step`.

        Args:
            step: Makes one update in place, without waiting for the device.
            capture: Captures a call, see `capture_cuda_graph`; may change the state.
        """
        self._step = step
        self._capture = capture
        self._captured: dict[tuple[int, ...], _Captured] = {}

    def __call__(
        self, state: dict[str, Tensor], tokens: Tensor, *inputs: Tensor
    ) -> Outputs:
        """Make one update; see `TrainingStep.__call__`."""
        parameters = state["parameters"]
        key = (parameters.data_ptr(), len(parameters))
        if key not in self._captured:
            self._captured[key] = self._record(state, tokens, inputs)
        captured = self._captured[key]
        for fixed, value in zip(captured.inputs, inputs, strict=True):
            fixed.copy_(value)
        captured.replay()
        loss, norm = captured.outputs
        return loss.clone(), norm.clone()

    def _record(
        self, state: dict[str, Tensor], tokens: Tensor, inputs: tuple[Tensor, ...]
    ) -> _Captured:
        """Capture the step on `state`; leave the state unchanged."""
        fixed = tuple(value.clone() for value in inputs)
        before = {name: value.clone() for name, value in state.items()}
        run = partial(self._step, state, tokens, *fixed)
        try:
            replay, outputs = self._capture(run, tokens.device)
        finally:
            for name, value in before.items():
                state[name].copy_(value)
        return _Captured(state, fixed, replay, outputs)
