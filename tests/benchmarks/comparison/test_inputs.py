"""A finished job is reused only while its code, its agent and its text are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.agent import make_env
from agents.tabular_q import TabularQ
from benchmarks.comparison import executors, inputs
from benchmarks.comparison.executors import JobFolder, SerialExecutor, run_all
from benchmarks.comparison.inputs import agent_hash
from benchmarks.comparison.jobs import Job
from benchmarks.comparison.methods import find_method
from benchmarks.dependencies import Sources
from benchmarks.paths import ROOT
from tests.helpers.small import SMALL

SOURCE = """\
from agents.agent import Agent
class Mine(Agent):
    def __init__(self, seed): pass
    def act(self, observation): return {action}
"""


@pytest.fixture(autouse=True)
def fixture_no_loaded_agents() -> None:
    """Forget loaded agents, as a new process does."""
    find_method.cache_clear()


def make_job(method: str = "linear", **overrides: Any) -> Job:
    fields: dict[str, Any] = {
        "env": "markov",
        "phase": "test",
        "seeds": (0,),
        "settings": {"scale": "tiny", **SMALL},
    }
    return Job(method, **(fields | overrides))


def run(
    folder: Path, *jobs: Job, fresh: bool = False, mixed: bool = False
) -> list[dict[str, Any]]:
    """Run jobs as a new process does; return their records."""
    find_method.cache_clear()
    plan = list(jobs)
    executor = SerialExecutor()
    done = run_all(lambda _: plan, folder, executor, fresh=fresh, mixed=mixed)
    return [done[job.file_name] for job in jobs]


def actions(record: dict[str, Any]) -> set[int]:
    return set(record["runs"][0]["curves"]["action"])


def as_made_before(path: Path) -> None:
    """Make a record one of those that did not yet name their code."""
    record = json.loads(path.read_text())
    del record["inputs"]
    path.write_text(json.dumps(record))


def test_a_changed_agent_runs_again_and_its_old_job_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mine.py"
    source.write_text(SOURCE.format(action=0))
    jobs = make_job(f"{source}:Mine"), make_job()
    first, other = run(tmp_path / "jobs", *jobs)
    assert actions(first) == {0}
    source.write_text(SOURCE.format(action=2))
    second, same = run(tmp_path / "jobs", *jobs)
    assert actions(second) == {2}
    assert same == other  # not run again
    (old,) = (tmp_path / "jobs" / "old").iterdir()
    assert json.loads(old.read_text())["runs"] == first["runs"]
    assert "1 old jobs ran again" in capsys.readouterr().err


def test_a_changed_table_runs_again(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    job = make_job(str(table))
    settings = {**TabularQ(0).settings, **SMALL, "scale": "tiny"}
    for number, seed in enumerate((0, 1)):
        learner = TabularQ(seed)
        env = make_env("markov", **settings)
        env.reset(seed=seed)
        learner.train(env, 2)
        learner.save(table)
        (record,) = run(tmp_path / "jobs", job)
        assert record["inputs"]["agent"] == agent_hash(str(table))
        old = tmp_path / "jobs" / "old"
        assert len(list(old.glob("*"))) == number


def test_a_changed_text_runs_again(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    job = make_job(env=str(text))
    digests = []
    for words in ("the quick brown fox ", "the lazy dog sleeps "):
        text.write_text(words * 300)
        (record,) = run(tmp_path / "jobs", job)
        digests.append(record["corpus"]["sha256"])
    assert len(set(digests)) == 2
    # A record that names no code still names its text.
    as_made_before(tmp_path / "jobs" / job.file_name)
    text.write_text("a third text, again of another length " * 300)
    (record,) = run(tmp_path / "jobs", job)
    assert record["corpus"]["sha256"] not in digests


def test_a_hash_covers_the_modules_that_an_agent_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pack").mkdir()
    names = ("first.py", "second.py", "pack/__init__.py", "pack/third.py", "lazy.py")
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / "mine.py").write_text(
        "import json, torch.nn, absent_module, lr_gym\n"
        "import first\n"
        "from pack import third\n"
        "def later():\n    import lazy\n"
    )
    (tmp_path / "first.py").write_text("import mine\nfrom second import x\n")
    (tmp_path / "unused.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = {agent_hash("mine:Mine")}
    assert seen == {agent_hash(f"{tmp_path}/mine.py:Mine")}
    for number, name in enumerate(names):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# changed\n")
        seen.add(agent_hash("mine:Mine"))
        assert len(seen) == number + 2, name
    (tmp_path / "unused.py").write_text("# changed")
    assert agent_hash("mine:Mine") in seen


def test_jobs_of_other_code_are_reused_with_a_line_or_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = make_job(), make_job("cosine")
    before = run(tmp_path, *jobs)
    assert "code" not in capsys.readouterr().err
    for module in (executors, inputs):
        monkeypatch.setattr(module, "code_hash", lambda: "changed")
    assert run(tmp_path, *jobs) == before
    line = "2 jobs were made by other code: lr_gym or agents has changed since"
    assert line in capsys.readouterr().err
    with pytest.raises(ValueError, match="two codes are not comparable"):
        run(tmp_path, *jobs, make_job("wsd"))
    mixed = run(tmp_path, *jobs, make_job("greedy_lr"), mixed=True)
    assert mixed[:2] == before
    assert mixed[2]["inputs"]["code"] == "changed"
    after = run(tmp_path, *jobs, make_job("wsd"), fresh=True)
    assert {record["inputs"]["code"] for record in after} == {"changed"}
    assert len(list((tmp_path / "old").iterdir())) == 2
    capsys.readouterr()
    again = run(tmp_path, *jobs, make_job("wsd"), fresh=True)  # continues
    assert again == after


def test_jobs_made_before_code_was_noted_are_reused_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    (made,) = run(tmp_path, job)
    as_made_before(tmp_path / job.file_name)
    (record,) = run(tmp_path, job)
    assert record["runs"] == made["runs"]
    assert "1 jobs do not name the code that made them" in capsys.readouterr().err


def test_an_agent_that_changes_while_its_job_runs_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(SOURCE.format(action=0))
    folder = JobFolder(tmp_path)
    job = make_job(f"{source}:Mine")
    run(tmp_path, job)
    assert folder.read(job) is not None
    source.write_text(SOURCE.format(action=1))
    (changed,) = run(tmp_path, job)
    folder.save(job, changed)
    with pytest.raises(ValueError, match="changed while its job ran"):
        folder.read(job)


def test_the_hash_of_the_code_covers_jobs_agents_and_the_package() -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in Sources().files("benchmarks.comparison.jobs")
    }
    assert {
        "benchmarks/comparison/methods.py",
        "agents/tabular_q.py",
        "lr_gym/trainers/population.py",
        "lr_gym/surrogate/laws/markov-tiny.json",
    } <= files
    assert inputs.code_hash() == Sources().code_hash("benchmarks.comparison.jobs")
