"""The report: one self-contained file, escaped, reproducible, complete or not."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.comparison import summary
from benchmarks.comparison.curves import band, expected_best, quality
from benchmarks.comparison.figures import draw_episodes, limits, line_styles
from benchmarks.comparison.jobs import Job
from benchmarks.comparison.report import jobs_table
from benchmarks.comparison.summary import summarize
from benchmarks.drawing import shortened
from benchmarks.event_files import TAGS, write_curves
from tests.helpers.records import (
    HOSTILE,
    METHODS,
    small_comparison,
    small_report,
    small_run,
)

# --------------------------------------------------------------------------- the page


def test_the_page_stands_alone_and_names_everybody(tmp_path: Path) -> None:
    records = small_comparison(envs=("markov", "text8"))
    page = small_report(tmp_path, records)
    assert all(link.startswith("#") for link in page.links)
    targets = {link[1:] for link in page.links}
    assert targets <= set(page.ids)
    assert not re.search(r"@import|url\((?!#)", page.source)
    for word in (*METHODS, "q_paper (open_loop)", "markov tiny", "text8 tiny"):
        assert word in page.words
    for word in ("python benchmarks/compare_agents.py", "abc1234", "5a" * 32):
        assert word in page.words
    assert page.words.count("partial copy") == 1  # text8's, and not markov's
    assert page.tags.count("svg") == 1 + 1 + 2 * 2 + 2


def test_tables_can_be_sorted_and_begin_sorted_by_difference(tmp_path: Path) -> None:
    page = small_report(tmp_path, small_comparison())
    assert page.sorts == ["ascending"]
    assert page.tags.count("script") == 1
    assert 'querySelectorAll("table.sortable")' in page.source
    values = re.findall(r'<td data-value="([^"]*)"', page.source)
    assert "" in values  # a missing value, which the script puts last
    assert {value for value in values if value == "None"} == set()


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    records = small_comparison(("linear", "ppo", "constant"))
    rows = [
        replace(row, label=HOSTILE) if row.label == "ppo" else row
        for row in summarize(records)
    ]
    for record in records:
        if record["job"]["method"] == "ppo":
            record["job"]["method"] = HOSTILE
    page = small_report(tmp_path, records, rows)
    assert page.tags.count("script") == 1
    assert HOSTILE not in page.source
    assert HOSTILE in page.words
    # Rendering a name as mathematics would have failed, or dropped its dollars.
    assert page.words.count("$x$") > 3


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    pages = [small_report(tmp_path / name, small_comparison()) for name in "ab"]
    assert pages[0].source == pages[1].source


def test_no_id_occurs_twice_with_different_meanings(tmp_path: Path) -> None:
    page = small_report(tmp_path, small_comparison(envs=("markov", "shakespeare")))
    meant: dict[str, str] = {}
    for identity, rest in re.findall(r'<\w+ id="([^"]+)"([^>]*>)', page.source):
        assert meant.setdefault(identity, rest) == rest


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_two_methods_and_few_runs_are_enough(
    tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    records = small_comparison(("linear", "constant"), seeds=seeds)
    rows = summarize(records)
    assert rows[-1].difference is not None
    assert (rows[-1].difference.low is None) == (len(seeds) == 1)
    page = small_report(tmp_path, records, rows)
    assert "Best agent" not in page.words
    assert "None" not in page.words


def test_the_reference_alone_makes_a_page(tmp_path: Path) -> None:
    page = small_report(tmp_path, small_comparison(("linear",)))
    assert "linear" in page.words


def test_one_who_diverges_does_not_hide_the_others(tmp_path: Path) -> None:
    records = small_comparison(("linear", "cosine", "constant", "ppo"))
    [learned] = [r for r in records if r["job"]["method"] == "ppo"]
    learned["runs"] = [
        small_run(seed, 40.0, 1.0, steps=2 + seed % 3, diverged=True)
        for seed in range(5)
    ]
    rows = summarize(records)
    assert limits(rows)[1] < 1.0
    assert "+38." in small_report(tmp_path, records, rows).words


def test_different_origins_are_pointed_out(tmp_path: Path) -> None:
    records = small_comparison(("linear", "constant"))
    assert "different codes" not in small_report(tmp_path, records).words
    records[0]["provenance"] = records[0]["provenance"] | {"commit": "def5678+"}
    page = small_report(tmp_path, records)
    assert "2 different codes" in page.words
    assert "def5678+" in page.words


def test_jobs_are_listed_as_they_are_on_disk() -> None:
    records = small_comparison(("linear", "ppo"))
    table = jobs_table(records)
    names = sorted(Job(**record["job"]).file_name for record in records)
    assert [row[0].text for row in table.rows] == names
    seconds = {f"{record['seconds']:.1f}" for record in records}
    assert {row[3].text for row in table.rows} == seconds


# ------------------------------------------------------------------------- the figures


@pytest.mark.parametrize("losses", [[2.0], [3.0, 1.0, 2.0], [5.0, 1.0, 1.0, 4.0, 2.5]])
def test_the_expected_best_is_that_over_all_subsets(losses: list[float]) -> None:
    everything = [
        np.mean([min(chosen) for chosen in itertools.combinations(losses, k)])
        for k in range(1, len(losses) + 1)
    ]
    np.testing.assert_allclose(expected_best(losses), everything, rtol=1e-12)


def test_quality_of_tuned_methods_searches_and_learners() -> None:
    records = small_comparison(("linear", "random_search", "ppo"))
    rows = {row.label: row for row in summarize(records)}
    spent, losses = quality(rows["linear"], records, "markov tiny")
    assert spent == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(losses, [2.1, 2.0 + 0.1 / 3, 2.0])
    [search] = [r for r in records if r["job"]["method"] == "random_search"]
    spent, losses = quality(rows["random_search"], records, "markov tiny")
    assert (spent[0], spent[-1], losses[-1]) == (1.0, 12.0, min(search["history"]))
    [learned] = [r for r in records if r["job"]["method"] == "ppo"]
    spent, losses = quality(rows["ppo"], records, "markov tiny")
    assert spent == [8.0, 9.0, 10.0, 11.0, 12.0]
    assert losses[0] == pytest.approx(np.mean(learned["history"][:8]))
    assert losses[-1] == pytest.approx(np.mean(learned["history"][-8:]))


def test_bands_keep_the_loss_of_who_ended_early_and_not_its_rate() -> None:
    runs = [small_run(0, 2.0, 0.01), small_run(1, 9.0, 1.0, steps=2, diverged=True)]
    iterations, losses = band(runs, "val_loss")
    assert iterations == [0, 10, 20, 30, 40, 50, 60]
    assert losses[1, -1] == pytest.approx((2.0 + 9.0) / 2)
    iterations, rates = band(runs, "optimizer_lr")
    assert iterations == [10, 20, 30, 40, 50, 60]
    assert rates[1, 2] == runs[0]["curves"]["optimizer_lr"][2]


def test_at_most_eight_are_in_colour_and_each_in_another() -> None:
    chosen = line_styles(summarize(small_comparison()))
    assert len(chosen) <= 8
    assert {"linear", "q_paper", "q_improved", "as_published"} < set(chosen)
    assert len({look.color for look in chosen.values()}) == len(chosen)


def test_long_names_lose_their_middle() -> None:
    assert shortened("linear") == "linear"
    short = shortened("folder/" * 9 + "agents.py:Mine")
    assert len(short) == 32
    assert short.startswith("folder/")
    assert short.endswith("agents.py:Mine")


def test_the_readme_picture_reads_on_any_page() -> None:
    records = small_comparison(("linear", "constant", "q_paper"))
    svg = draw_episodes(records, ["q_paper", "linear"])
    assert svg == draw_episodes(records, ["q_paper", "linear"])
    assert svg.startswith("<svg ")
    assert "currentColor" not in svg  # an image has no page to take it from
    assert "q_paper" in svg
    assert "constant" not in svg


# -------------------------------------------------------------------------- TensorBoard


def test_curves_can_be_read_back_from_event_files(tmp_path: Path) -> None:
    records = small_comparison(("linear", "q_paper"), seeds=(0, 3))
    for _ in range(2):  # again: in place of the first, not beside it
        write_curves(tmp_path, summary.tested_runs(records))
    runs = sorted(str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("ev*"))
    assert runs == sorted(
        f"{label}/markov-tiny/seed-{seed}"
        for label in ("linear", "q_paper", "q_paper--open_loop-")
        for seed in (0, 3)
    )
    events = EventAccumulator(str(tmp_path / "q_paper" / "markov-tiny" / "seed-3"))
    events.Reload()
    [learned] = [r for r in records if r["job"]["phase"] == "learn"]
    curves = learned["runs"][1]["curves"]
    for tag, key in TAGS.items():
        found = events.Scalars(tag)
        np.testing.assert_allclose([e.value for e in found], curves[key], rtol=1e-6)
        steps = curves["iteration"][-len(curves[key]) :]
        assert [event.step for event in found] == steps


def test_records_survive_json(tmp_path: Path) -> None:
    records = small_comparison(("linear", "ppo"))
    again = json.loads(json.dumps(records))
    assert (
        small_report(tmp_path, again).source == small_report(tmp_path, records).source
    )
