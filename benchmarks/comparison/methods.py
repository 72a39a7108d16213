"""The methods of a comparison: schedules, rules, optimizers, searches, and agents."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from agents.agent import Agent
from agents.baselines import (
    BASELINES,
    RampAndUndoAgent,
    ScheduleAgent,
    UpdateSizeAgent,
)
from agents.deep_rl import ALGORITHMS, DeepAgent, SavedModel
from agents.optimizers import CONTROLLER, OPTIMIZERS, OptimizerMethod
from agents.replay import Placebo
from agents.saved_policy import saved_agent
from agents.search import Lookahead, PopulationBased, RandomSearch
from agents.tabular_q import TabularQ
from lr_gym.schedules import SCHEDULES

LOOKAHEAD_COST = 4  # three actions tried, and the one taken
SAVED_SUFFIXES = (".json", ".safetensors", ".zip")  # of files that hold an agent


@dataclass(frozen=True)
class Method:
    """One method of a comparison.

    Attributes:
        make: Constructs the agent from a seed.
        kind: ``schedule``, ``rule``, ``optimizer``, ``search``, ``agent`` or
            ``placebo``.
        cost: Trainings per run.
        alone: Whether its runs cannot share a population.
        optimizer: The optimizer that replaces AdamW, or `None`.
    """

    make: Callable[[int], Agent]
    kind: str
    cost: int = 1
    alone: bool = False
    optimizer: OptimizerMethod | None = None

    @property
    def learns(self) -> bool:
        """Whether it spends its budget on learning instead of tuning its rate."""
        return self.make(0).learns


def _optimizer(optimizer: OptimizerMethod) -> Method:
    def make(seed: int) -> Agent:
        agent = ScheduleAgent(optimizer.base_schedule, seed)
        agent.settings = {**agent.settings, "max_lr": 1e3}  # Prodigy's is around 1
        if not optimizer.warmup:
            agent.settings["warmup_iters"] = 0
        return agent

    return Method(make, "optimizer", alone=True, optimizer=optimizer)


def _deep(algo: str, discount: float = 1.0) -> Callable[[int], Agent]:
    return partial(DeepAgent, algo=algo, num_envs=4, discount=discount)


def _q_paper(seed: int, *, epsilon_decay: bool = False) -> TabularQ:
    return TabularQ(seed, protocol="paper", epsilon_decay=epsilon_decay)


def _as_published(seed: int, *, epsilon_decay: bool = False) -> Agent:
    return Placebo(_q_paper(seed, epsilon_decay=epsilon_decay))


def _kind(name: str) -> str:
    return "schedule" if name in SCHEDULES else "rule"


METHODS: dict[str, Method] = {
    **{name: Method(make, _kind(name)) for name, make in BASELINES.items()},
    **{name: _optimizer(optimizer) for name, optimizer in OPTIMIZERS.items()},
    "random_search": Method(RandomSearch, "search"),
    "pbt": Method(PopulationBased, "search"),
    "lookahead": Method(Lookahead, "search", cost=LOOKAHEAD_COST, alone=True),
    "q_paper": Method(_q_paper, "agent"),
    "q_improved": Method(partial(TabularQ, protocol="improved"), "agent"),
    **{name: Method(_deep(name), "agent") for name in ALGORITHMS},
    "as_published": Method(_as_published, "placebo"),
}

# For the paper's tables and the ablations; compare_agents runs them only if named. The
# keywords of the environment (reward, factors, intervals) need no method of their own.
VARIANTS: dict[str, Method] = {
    # Starts nearer to the initial rate, and grows more slowly.
    "ramp_and_undo_near": Method(
        partial(RampAndUndoAgent, start_factor=1 / 30, growth=1.6), "rule"
    ),
    "update_size": Method(UpdateSizeAgent, "rule"),
    "controller": _optimizer(CONTROLLER),
    "q_paper_epsilon_decay": Method(partial(_q_paper, epsilon_decay=True), "agent"),
    "as_published_epsilon_decay": Method(
        partial(_as_published, epsilon_decay=True), "placebo"
    ),
    "q_paper_first_of_ties": Method(
        partial(TabularQ, protocol="paper", ties="first"), "agent"
    ),
    "q_improved_discounted": Method(partial(TabularQ, discount=0.9), "agent"),
    "q_improved_loss_states": Method(
        partial(TabularQ, features=("val_loss", "learning_rate")), "agent"
    ),
    "q_improved_full_states": Method(
        partial(TabularQ, features=("val_loss", "learning_rate", "progress")), "agent"
    ),
    "ppo_discounted": Method(_deep("ppo", discount=0.9), "agent"),
}


@cache
def find_method(name: str) -> Method:
    """Return the method called `name`.

    `name` can also be the path of a Q-table (``table.json``), of a policy
    (``policy.safetensors``) or of a model that ``agents/deep_rl.py`` saved
    (``model.zip``); or a class that takes a seed and has a method
    ``act(observation)``: ``module:Class`` or ``file.py:Class``. What else an `Agent`
    has, the class may define.

    Raises:
        ValueError: There is no such method; the message lists all.
    """
    methods = METHODS | VARIANTS
    if name in methods:
        return methods[name]
    if name.endswith(".json"):
        return Method(_saved_table(name), "agent")
    if name.endswith(".safetensors"):
        return Method(_saved_policy(name), "agent")
    if name.endswith(".zip"):
        return Method(_saved_model(name), "agent")
    source, separator, attribute = name.rpartition(":")
    if not separator:
        near = difflib.get_close_matches(name, methods, n=1)
        hint = f"did you mean {near[0]!r}? Use" if near else "use"
        raise ValueError(
            f"agent {name!r} is unknown; {hint} one of {', '.join(methods)}, your own "
            "as module:Class or file.py:Class, or a file: a Q-table's .json, a "
            "policy's .safetensors, the .zip of agents/deep_rl.py"
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
        make = _agent_class(getattr(module, attribute))
        make(0)
    except (
        ImportError,
        AttributeError,
        FileNotFoundError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"agent {name!r} cannot be loaded: {error}") from error
    return Method(make, "agent")


def _agent_class(make: Callable[[int], Agent]) -> Callable[[int], Agent]:
    """Return an agent's class; one with `act` alone gets the rest from `Agent`."""
    if not isinstance(make, type) or issubclass(make, Agent):
        return make
    if not callable(getattr(make, "act", None)):
        raise TypeError(f"{make.__name__} has no method act(observation)")
    return type(make.__name__, (make, Agent), {})


def _saved_policy(path: str) -> Callable[[int], Agent]:
    saved_agent(path)  # raises now if the file is invalid
    return partial(saved_agent, path)


def _saved_model(path: str) -> Callable[[int], Agent]:
    SavedModel(path)  # raises now if the file is invalid
    return partial(SavedModel, path)


def _saved_table(path: str) -> Callable[[int], Agent]:
    try:
        TabularQ.load(path)
    except OSError as error:
        raise ValueError(f"agent {path!r} cannot be loaded: {error}") from error

    def make(seed: int) -> Agent:
        agent = TabularQ.load(path, seed)
        agent.finish()  # acts greedily
        return agent

    return make
