"""The command lines of all scripts: a tilde is the home folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agents import command_line, tabular_q
from agents.command_line import expand_tildes, parse_command_line
from benchmarks.speed import gpu_queue, throughput

ROOT = Path(tabular_q.__file__).parents[1]


def test_a_tilde_is_expanded_where_a_shell_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    arguments = ["--out=~/x", "~", "~/a b", "--env", "a~/b", "--lr=1e-3", "--x=a=~/b"]
    assert expand_tildes(arguments) == [
        "--out=/home/me/x",
        "/home/me",
        "/home/me/a b",
        *arguments[3:],
    ]


def test_scripts_expand_the_tilde_of_every_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(sys, "argv", ["script", "--out=~/q.json", "--env=~/poem.txt"])
    args = parse_command_line(tabular_q.Args, "description")
    assert (args.out, args.env) == (Path("/home/me/q.json"), "/home/me/poem.txt")
    assert throughput.parse(["--out=~/x"]).out == Path("/home/me/x")
    assert gpu_queue.parse(["--out=~/x"]).out == Path("/home/me/x")


def test_every_script_reads_its_command_line_in_one_place() -> None:
    reads = "tyro.cli("
    users = {
        path
        for folder in ("agents", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if reads in path.read_text(encoding="utf-8")
    }
    assert users == {Path(command_line.__file__)}


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_ends_the_script(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", f"--seed={seed}"])
    with pytest.raises(SystemExit, match=r"error: --seed must be in \[0, 4294967295\]"):
        parse_command_line(tabular_q.Args, "description")


def test_a_damaged_table_ends_the_script(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("{")
    for name in ("table.json", "absent.json"):
        with pytest.raises(SystemExit, match=rf"error: .*{name}"):
            tabular_q.main(tabular_q.Args(scale="tiny", table=tmp_path / name))


def test_an_unknown_home_folder_ends_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(SystemExit, match=r"error: .* home folder"):
        expand_tildes(["--out=~/x"])
