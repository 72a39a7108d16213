"""Ablations: one change each, equal budgets, differences from the default."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.agent import Transition, make_env
from agents.deep_rl import DeepAgent
from agents.tabular_q import TabularQ
from benchmarks.comparison.ablations import VARIANTS, Args, Variant, main, variant_jobs
from benchmarks.comparison.methods import METHODS, find_method
from benchmarks.comparison.methods import VARIANTS as NAMED
from benchmarks.comparison.protocol import Task
from tests.helpers.small import SMALL, small_env

TASK = Task("markov", {"scale": "tiny", **SMALL})


def small_args(out: Path, **overrides: Any) -> Args:
    given: dict[str, Any] = {
        "agents": ("q_paper", "q_improved"),
        "budget": 3,
        "learners": 2,
        "seeds": 3,
        "workers": 1,
        "settings": json.dumps(SMALL),
        "out": out,
    }
    return Args(**(given | overrides))


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished ablations."""
    return main(small_args(tmp_path_factory.mktemp("ablations")))


def content_of(folder: Path) -> list[dict[str, Any]]:
    content = json.loads((folder / "ablations.json").read_text(encoding="utf-8"))
    assert content["provenance"]["commit"]
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def test_too_few_runs_for_any_call_are_named(folder: Path) -> None:
    text = (folder / "ablations.md").read_text(encoding="utf-8")
    assert "With 3 runs every unadjusted p-value is at least 0.250" in text


def test_every_variant_is_compared_with_its_own_default(folder: Path) -> None:
    rows = content_of(folder)
    expected = [*VARIANTS["q_paper"], *VARIANTS["q_improved"]]
    assert [(r["agent"], r["what"], r["value"]) for r in rows] == [
        (v.agent, v.what, v.value) for v in expected
    ]
    for row in rows:
        default = next(r for r in rows if r["agent"] == row["agent"])
        own, other = (r["test_losses"]["markov tiny"] for r in (row, default))
        assert len(own) == len(other) == row["runs"] == 3
        if row is default:
            assert row["call"] == "default"
            assert row["difference"] is None
        else:  # of three, the interquartile mean is the mean
            gap = np.mean(np.subtract(own, other))
            assert row["difference"]["value"] == pytest.approx(gap)
        assert row["trainings"] == (3 if row["agent"] == "q_improved" else 0)


def test_the_table_comes_as_markdown_and_as_csv(folder: Path) -> None:
    text = (folder / "ablations.md").read_text(encoding="utf-8")
    assert "| q_paper | initial LR | double |" in text
    assert "| q_improved | factors | (0.25, 0.5, 1.0, 2.0, 4.0) |" in text
    with (folder / "ablations.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content_of(folder))
    assert rows[0]["difference_value"] == ""
    assert float(rows[1]["difference_value"]) != 0.0


@pytest.mark.parametrize("agent", VARIANTS)
def test_variants_share_budget_learners_and_seeds(agent: str) -> None:
    args = Args()
    kinds = set()
    for variant in VARIANTS[agent]:
        jobs = variant_jobs(variant, TASK, args)
        kinds.add(tuple((j.phase, j.seeds, j.replicate, j.budget) for j in jobs))
        assert sorted(seed for job in jobs for seed in job.seeds) == list(
            range(args.seeds)
        )
    assert len(kinds) == 1
    names = {j.file_name for v in VARIANTS[agent] for j in variant_jobs(v, TASK, args)}
    assert len(names) == sum(len(variant_jobs(v, TASK, args)) for v in VARIANTS[agent])


def test_rates_and_intervals_are_multiples_of_the_tasks_own() -> None:
    settings = Variant("ppo", rate=2.0, interval=0.5).job(TASK, "test", (0,)).settings
    assert settings["learning_rate"] == pytest.approx(2 * SMALL["learning_rate"])
    assert settings["eval_interval"] == SMALL["eval_interval"] // 2
    at_tiny = Task("markov", {"scale": "tiny"})
    for factor, expected in ((0.5, 15), (2.0, 60)):
        job = Variant("ppo", interval=factor).job(at_tiny, "test", (0,))
        assert job.settings["eval_interval"] == expected


def test_named_variants_stay_out_of_a_comparison_unless_asked_for() -> None:
    assert not set(NAMED) & set(METHODS)
    for name, method in NAMED.items():
        assert find_method(name) is method


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "--budget must be at least 1"),
        ({"agents": ("dqn",)}, "--agents must be some of q_paper, q_improved, ppo"),
        ({"agents": ()}, "--agents must be some of"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main(small_args(tmp_path, **wrong))


# ------------------------------------------------------------------ what agents accept


def begun(agent: TabularQ, **overrides: Any) -> TabularQ:
    """The agent at the start of an episode, with its own settings."""
    env = small_env(**{**agent.settings, **overrides})
    env.reset(seed=0)
    agent.begin(env)
    return agent


def seen(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def test_a_table_takes_any_factors_and_features() -> None:
    agent = TabularQ(
        factors=(0.25, 0.5, 1.0, 2.0, 4.0), features=("val_loss",), discount=0.5
    )
    begun(agent)
    assert agent.keep_action == 2
    assert agent.state(seen(2.34, 1e-3, 0.5)) == (2.3,)
    assert agent.values((2.3,)) == [0.0] * 5
    assert agent.act(seen(2.34, 1e-3, 0.5)) in range(5)
    first, second = seen(2.3, 1e-3, 0.0), seen(2.1, 4e-3, 0.25)
    agent.table[(2.1,)] = [0.0, 0.0, 0.0, 0.0, 1.0]
    agent._update(Transition(first, 4, 0.2, second, terminated=False))
    assert agent.table[(2.3,)][4] == pytest.approx(0.5 * (0.2 + 0.5 * 1.0))


def test_defaults_are_those_of_the_protocols() -> None:
    paper, improved = TabularQ(protocol="paper"), TabularQ()
    assert (paper.discount, improved.discount) == (0.9, 1.0)
    assert paper.settings["lr_factors"] == (0.9, 1.0, 1.1)
    assert improved.settings["lr_factors"] == (0.5, 1.0, 2.0)
    point = seen(2.34, 1e-3, 0.5)
    assert begun(paper).state(point) == (2.34, 0.001)
    assert begun(improved).state(point) == (2, -20)


def test_the_environments_factors_decide_how_many_actions_there_are() -> None:
    agent = begun(TabularQ(), lr_factors=(0.25, 0.5, 1.0, 2.0, 4.0))
    assert len(agent.values((0, 0))) == 5
    agent.table[(0, 0)] = [0.0] * 5
    with pytest.raises(ValueError, match=r"5 actions per state, but there are 3"):
        begun(agent)
    with pytest.raises(ValueError, match="no action keeps the learning rate"):
        begun(TabularQ(), lr_factors=(0.5, 2.0))


def test_ties_go_where_the_released_code_sends_them() -> None:
    for ties, action in (("keep", 1), ("first", 0)):
        agent = begun(TabularQ(protocol="paper", ties=ties))  # type: ignore[arg-type]  # mypy sees str
        agent.epsilon = 0.0
        assert agent.act(seen(2.0, 1e-3, 0.0)) == action


def test_a_saved_table_keeps_what_it_was_made_with(tmp_path: Path) -> None:
    agent = TabularQ(
        factors=(0.5, 1.0), features=("learning_rate",), discount=0.25, ties="first"
    )
    agent.table = {(-20.0,): [1.0, 2.0]}
    agent.save(tmp_path / "q.json")
    copy = TabularQ.load(tmp_path / "q.json")
    for name in ("table", "features", "discount", "ties"):
        assert getattr(copy, name) == getattr(agent, name)
    assert copy.settings["lr_factors"] == (0.5, 1.0)
    content = json.loads((tmp_path / "q.json").read_text(encoding="utf-8"))
    content["table"] = [[-20.0, 1.0, [1.0, 2.0]]]
    (tmp_path / "q.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a state must have 1 features, got 2"):
        TabularQ.load(tmp_path / "q.json")


def test_a_table_from_before_these_choices_is_read(tmp_path: Path) -> None:
    TabularQ(protocol="paper").save(tmp_path / "q.json")
    content = json.loads((tmp_path / "q.json").read_text(encoding="utf-8"))
    for name in ("discount", "features", "ties"):
        del content[name]
    (tmp_path / "q.json").write_text(json.dumps(content))
    agent = TabularQ.load(tmp_path / "q.json")
    assert (agent.discount, agent.ties) == (0.9, "keep")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"discount": 1.5}, "discount must be finite and in"),
        ({"factors": (0.5, 2.0)}, "factors must differ and hold 1"),
        ({"factors": (1.0, 1.0)}, "factors must differ and hold 1"),
        ({"factors": (0.0, 1.0)}, "factors must be finite and in"),
        ({"features": ("loss",)}, "features must be one of"),
        ({"features": ()}, "features must be one or more"),
        ({"ties": "last"}, "ties must be keep or first"),
    ],
)
def test_a_table_says_what_is_wrong(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularQ(**wrong)


def test_a_deep_agent_discounts_when_asked_to() -> None:
    agent = DeepAgent(0, algo="ppo", discount=0.9)
    env = make_env("markov", **({"scale": "tiny"} | SMALL | dict(agent.settings)))
    agent.train(env, 2)
    assert agent.model.gamma == 0.9
    with pytest.raises(ValueError, match="discount must be finite and in"):
        DeepAgent(discount=-0.1)
