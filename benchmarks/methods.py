"""What can be compared: schedules, rules, optimizers, searches, agents, and yours."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agents.agent import Agent
from agents.baselines import BASELINES, ScheduleAgent
from agents.deep_rl import ALGORITHMS, DeepAgent
from agents.optimizers import OPTIMIZERS, OptimizerMethod
from agents.replay import Placebo
from agents.search import Lookahead, PopulationBased, RandomSearch
from agents.tabular_q import TabularQ

LOOKAHEAD_COST = 4  # three actions tried, and the one taken


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        make: Constructs the agent from a seed.
        kind: ``schedule``, ``rule``, ``optimizer``, ``search``, ``agent`` or
            ``placebo``.
        cost: Trainings that one run of it costs.
        alone: Its runs cannot share a population.
        optimizer: What replaces AdamW, or `None`.
    """

    make: Callable[[int], Agent]
    kind: str
    cost: int = 1
    alone: bool = False
    optimizer: OptimizerMethod | None = None

    @property
    def learns(self) -> bool:
        """Whether it spends its budget on learning, and not on tuning its rate."""
        return self.make(0).learns


def _optimizer(optimizer: OptimizerMethod) -> Method:
    def make(seed: int) -> Agent:
        agent = ScheduleAgent(optimizer.base_schedule, seed)
        agent.settings = {**agent.settings, "max_lr": 1e3}  # Prodigy's is around 1
        return agent

    return Method(make, "optimizer", alone=True, optimizer=optimizer)


def _deep(algo: str) -> Callable[[int], Agent]:
    return partial(DeepAgent, algo=algo, num_envs=4)


def _kind(name: str) -> str:
    rules = ("random", "plateau", "reactive", "greedy_lr")
    return "rule" if name in rules else "schedule"


METHODS: dict[str, Method] = {
    **{name: Method(make, _kind(name)) for name, make in BASELINES.items()},
    **{name: _optimizer(optimizer) for name, optimizer in OPTIMIZERS.items()},
    "random_search": Method(RandomSearch, "search"),
    "pbt": Method(PopulationBased, "search"),
    "lookahead": Method(Lookahead, "search", cost=LOOKAHEAD_COST, alone=True),
    "q_paper": Method(partial(TabularQ, protocol="paper"), "agent"),
    "q_improved": Method(partial(TabularQ, protocol="improved"), "agent"),
    **{name: Method(_deep(name), "agent") for name in ALGORITHMS},
    "as_published": Method(
        lambda seed: Placebo(TabularQ(seed, protocol="paper")), "placebo"
    ),
}


def find_method(name: str) -> Method:
    """Return the method that `name` means.

    A saved Q-table (``table.json``), or a class of yours, ``module:Class`` or
    ``file.py:Class``, constructed with a seed, joins the comparison by its path.

    Raises:
        ValueError: There is no such method; the message lists those there are.
    """
    if name in METHODS:
        return METHODS[name]
    if name.endswith(".json"):
        return Method(_saved_table(name), "agent")
    source, separator, attribute = name.rpartition(":")
    if not separator:
        raise ValueError(
            f"agent {name!r} is unknown; use one of {', '.join(METHODS)}, your own as "
            "module:Class or file.py:Class, or a saved Q-table's .json"
        )
    try:
        if source.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            if spec is None or spec.loader is None:
                raise ImportError(f"{source} cannot be imported")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
        make: Callable[[int], Agent] = getattr(module, attribute)
        make(0)
    except (ImportError, AttributeError, FileNotFoundError, TypeError) as error:
        raise ValueError(f"agent {name!r} cannot be loaded: {error}") from error
    return Method(make, "agent")


def _saved_table(path: str) -> Callable[[int], Agent]:
    try:
        TabularQ.load(path)
    except OSError as error:
        raise ValueError(f"agent {path!r} cannot be loaded: {error}") from error

    def make(seed: int) -> Agent:
        agent = TabularQ.load(path, seed)
        agent.finish()  # it learned elsewhere
        return agent

    return make
