"""Regret to tuned schedules: runs that are equal for all methods, values by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.comparison import executors
from benchmarks.comparison.jobs import Job
from benchmarks.controller import choose_list, wrong_rates
from benchmarks.controller.choose_list import choose
from benchmarks.controller.instance_jobs import (
    NARROW,
    ONE_SETTING,
    TRANSFERRED,
    TUNED,
    ListedInstance,
    make_cells,
)
from benchmarks.controller.instance_report import instance_name, judge, worst_tenth
from benchmarks.controller.tuning_free import Args, main, make_suite, read_instances
from benchmarks.paths import ROOT
from lr_gym import HELD_OUT, Instance
from tests.helpers.small import SMALL, small_env

SETTINGS = json.dumps({k: v for k, v in SMALL.items() if k != "learning_rate"})
CONTROLLER = "update_size"


def small_instances(count: int = 3) -> list[Instance]:
    """Return two instances of one cell, and one of another size and horizon."""
    same: dict[str, Any] = {
        "corpus": "markov",
        "n_layer": 1,
        "batch_size": 4,
        "good_lr": 8e-3,
    }
    sizes = [(16, 8, 0.1), (16, 8, 10.0), (24, 16, 1.0)]
    return [
        Instance(**same, n_embd=width, max_iters=length, lr_factor=factor)
        for width, length, factor in sizes[:count]
    ]


def small_args(folder: Path, **overrides: Any) -> Args:
    path = folder / "instances.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(instance) for instance in small_instances()]))
    settings: dict[str, Any] = {
        "instances": path,
        "seeds": 2,
        "settings": SETTINGS,
        "workers": 1,
        "out": folder / "out",
    }
    return Args(**(settings | overrides))


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished benchmark."""
    folder = tmp_path_factory.mktemp("tuning_free")
    main(small_args(folder))
    return folder


def lines_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "runs.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_methods_run_all_instances_on_the_same_seeds(folder: Path) -> None:
    lines = lines_of(folder)
    labels = {line["label"] for line in lines}
    assert labels == {
        TUNED,
        ONE_SETTING,
        *("cosine", "linear", "wsd", "plateau", "greedy_lr", "constant", "random"),
        *("schedule_free", "prodigy", "ramp_and_undo"),
        *(CONTROLLER, f"{CONTROLLER} (open loop)"),
    }
    names = {line["instance"] for line in lines}
    assert len(names) == 3
    expected = [(name, seed) for name in sorted(names) for seed in "01"]
    for label in labels:
        runs = [(x["instance"], x["seed"]) for x in lines if x["label"] == label]
        assert sorted(runs) == expected, label


def test_rivals_are_optional_but_tuned_schedules_are_not(
    folder: Path,
) -> None:
    args = small_args(folder, rivals=("schedule_free",))
    done = {p.name: json.loads(p.read_text()) for p in (args.out / "jobs").iterdir()}
    labels = {entry.label for entry in make_suite(args).entries(done)}
    replay = f"{CONTROLLER} (open loop)"
    assert labels == {CONTROLLER, replay, TUNED, ONE_SETTING, "schedule_free"}
    with pytest.raises(ValueError, match=r"--rivals must be of .*; got 'adam'"):
        make_suite(small_args(folder, rivals=("adam",)))


def test_an_optimizer_that_sets_its_own_rate_has_no_replay(folder: Path) -> None:
    args = small_args(folder, rivals=(), controllers=(CONTROLLER, "controller"))
    suite = make_suite(args)
    done = {p.name: json.loads(p.read_text()) for p in (args.out / "jobs").iterdir()}
    (entry, *_) = [e for e in suite.entries(done) if e.label == "controller"]
    assert entry.job.learning_rates == pytest.approx((8e-4, 8e-4, 8e-2, 8e-2))
    done[entry.job.file_name] = {}
    labels = {entry.label for entry in suite.entries(done)}
    replay = f"{CONTROLLER} (open loop)"
    assert labels == {CONTROLLER, replay, "controller", TUNED, ONE_SETTING}


def test_the_transferred_rate_is_the_narrow_models_over_the_width(
    tmp_path: Path,
) -> None:
    args = small_args(tmp_path, rivals=(TRANSFERRED,), seeds=1, only=(2,))
    instance = replace(small_instances()[2], n_embd=64)
    assert args.instances is not None
    args.instances.write_text(
        json.dumps([asdict(small_instances()[0])] * 2 + [asdict(instance)])
    )
    main(args)
    jobs = [json.loads(path.read_text()) for path in (args.out / "jobs").iterdir()]
    tuning = [
        (run["metrics"]["final_val_loss"], run["learning_rate"])
        for job in jobs
        for run in job["runs"]
        if job["job"]["phase"] == "tune" and job["job"]["settings"]["n_embd"] == NARROW
    ]
    (line,) = (x for x in lines_of(tmp_path) if x["label"] == TRANSFERRED)
    expected = min(tuning)[1] * NARROW / 64
    assert float(line["learning_rate"]) == pytest.approx(expected)


def test_it_writes_json_a_table_and_a_figure(folder: Path) -> None:
    result = json.loads((folder / "out" / "tuning_free.json").read_text())
    assert result["tuning_trainings_per_instance"] == 24
    assert result["trainings"]["tune"] == 2 * 24  # two cells
    assert len(result["peaks"]) == 8
    rows = result["controllers"][CONTROLLER]["rows"]
    tuned = next(row for row in rows if row["label"] == TUNED)
    assert tuned["regret"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    goals = result["controllers"][CONTROLLER]["goals"]
    rivals = {*goals["better than"], *goals["not shown to be better than"]}
    assert rivals == {row["label"] for row in rows} - {TUNED, CONTROLLER}
    with (folder / "out" / "tuning_free.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    assert (folder / "out" / "tuning_free.svg").read_text().startswith("<svg")


def test_the_tuned_setting_is_the_best_of_the_tuning_runs(folder: Path) -> None:
    args = small_args(folder)
    suite = make_suite(args)
    records = [json.loads(p.read_text()) for p in (args.out / "jobs").iterdir()]
    for cell in suite.cells:
        tuning = [
            (run["metrics"]["final_val_loss"], record["job"]["method"], run)
            for record in records
            for run in record["runs"]
            if record["job"]["phase"] == "tune"
            and record["job"]["settings"]["n_embd"] == cell.instances[0].n_embd
        ]
        assert len(tuning) == 24
        best = min(tuning, key=lambda item: item[0])
        done = {path.name: json.loads(path.read_text()) for path in
                (args.out / "jobs").iterdir()}  # fmt: skip
        assert suite.tuned(cell, done) == (best[1], best[2]["learning_rate"])


def test_a_job_is_the_familys_run_of_that_instance(folder: Path) -> None:
    lines = lines_of(folder)
    base = {k: v for k, v in json.loads(SETTINGS).items() if k != "max_iters"}
    for number, instance in enumerate(small_instances()):
        env = small_env(
            **base,
            max_iters=8,
            base_schedule="wsd",
            family={"n_embd": [16, 24], "max_iters": [8, 16], "n_layer": [1]},
        )
        options = {"instance": asdict(instance), "seed": 1}
        _, info = env.reset(options=options)
        while info["progress"] < 1:
            *_, info = env.step(1)
        name = sorted({x["instance"] for x in lines}, key=[
            x["instance"] for x in lines].index)[number]  # fmt: skip
        (line,) = [
            x
            for x in lines
            if (x["label"], x["instance"], x["seed"]) == ("wsd", name, "1")
        ]
        assert float(line["learning_rate"]) == pytest.approx(instance.learning_rate)
        assert float(line["final_val_loss"]) == pytest.approx(info["val_loss"], 1e-4)


def test_the_replay_follows_the_mean_curve_of_its_instance(folder: Path) -> None:
    args = small_args(folder)
    records = [json.loads(p.read_text()) for p in (args.out / "jobs").iterdir()]

    def curves(phase: str, width: int) -> list[list[float]]:
        (record,) = [
            r
            for r in records
            if (r["job"]["method"], r["job"]["phase"]) == (CONTROLLER, phase)
            and r["job"]["settings"]["n_embd"] == width
        ]
        return [run["curves"]["learning_rate"] for run in record["runs"]]

    for width, count in ((16, 2), (24, 1)):
        recorded, replayed = curves("test", width), curves("open_loop", width)
        for instance in range(count):
            part = slice(2 * instance, 2 * instance + 2)
            mean = np.exp(np.mean(np.log(recorded[part]), axis=0))
            for curve in replayed[part]:
                np.testing.assert_allclose(curve, mean, rtol=1e-5)


def test_a_finished_benchmark_computes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: Job) -> dict[str, Any]:
        raise AssertionError(f"{job} was finished")

    before = (folder / "out" / "runs.csv").read_bytes()
    monkeypatch.setattr(executors, "run_job", refuse)
    main(small_args(folder))
    assert (folder / "out" / "runs.csv").read_bytes() == before


def test_regrets_and_goals_by_hand() -> None:
    def line(label: str, instance: str, seed: int, loss: float) -> dict[str, Any]:
        return {
            "label": label,
            "instance": instance,
            "seed": seed,
            "final_val_loss": loss,
            "diverged": loss > 5,
        }

    table = {TUNED: 2.0, "mine": 2.005, "rival": 2.5, "diverged": 9.0}
    lines = [
        line(label, name, seed, loss + 0.001 * seed)
        for label, loss in table.items()
        for name in ("a", "b")
        for seed in range(5)
    ]
    judged = judge(lines, "mine")
    assert [row["label"] for row in judged["rows"]] == [*table]
    mine = judged["rows"][1]
    assert mine["regret"]["value"] == pytest.approx(0.005)
    assert judged["rows"][3]["diverged"] == 1.0
    assert judged["goals"] == {
        "regret at most 0.01": True,
        "worst tenth at most 0.03": True,
        "no divergence": True,
        "better than": ["rival", "diverged"],
        "not shown to be better than": [],
    }


@pytest.mark.parametrize(
    ("runs", "expected"), [((15, 5), 13.5), ((10, 10), 9.0), ((11,), 9.5)], ids=str
)
def test_the_worst_tenth(runs: tuple[int, ...], expected: float) -> None:
    scores = {str(i): np.array(range(count), float) for i, count in enumerate(runs)}
    assert worst_tenth(scores).value == expected  # of 20, 20, 11: the worst 2


def test_the_held_out_cells_keep_their_decisions_at_the_same_shares() -> None:
    cells = make_cells(HELD_OUT, "tiny", {})
    assert len(cells) == 12  # three corpora, two sizes, two horizons
    assert sum(len(cell.instances) for cell in cells) == len(HELD_OUT)
    intervals = {
        (c.task.settings["max_iters"], c.task.settings["eval_interval"]) for c in cells
    }
    assert intervals == {(300, 15), (900, 45)}
    assert {c.task.settings["learning_rate"] for c in cells} == {8e-3}  # one grid


def test_a_list_can_name_models_and_evaluations() -> None:
    shape: dict[str, Any] = asdict(small_instances()[0]) | {"max_iters": 100}
    listed = [
        ListedInstance(**shape),
        ListedInstance(**shape, architecture="lstm", evaluations=5),
        ListedInstance(**shape, architecture="lstm", evaluations=100),
    ]
    plain, *others = make_cells(listed, "tiny", json.loads(SETTINGS))
    (same,) = make_cells([Instance(**shape)], "tiny", json.loads(SETTINGS))
    assert plain == same, "its jobs keep their names"
    assert "architecture" not in plain.task.settings
    assert [cell.task.settings["architecture"] for cell in others] == ["lstm"] * 2
    assert [cell.task.settings["eval_interval"] for cell in others] == [20, 1]
    assert len({instance_name(instance) for instance in listed}) == 3
    with pytest.raises(ValueError, match="architecture must be one of"):
        ListedInstance(**shape, architecture="mlp")
    with pytest.raises(ValueError, match="evaluations must be"):
        ListedInstance(**shape, evaluations=101)


def test_the_fourth_list_spreads_over_models_and_rates() -> None:
    path = Path("benchmarks/controller/held_out_v4.json")
    listed: list[Any] = read_instances(Args(instances=ROOT / path))
    assert len(make_cells(listed, "tiny", {})) == 16
    assert {x.architecture for x in listed} == {"gpt", "lstm", "conv"}
    assert {x.evaluations for x in listed} >= {5, 100}
    rates = [instance.good_lr for instance in listed]
    assert max(rates) > 30 * min(rates)


@pytest.mark.slow
def test_the_fourth_list_is_chosen_by_its_seed() -> None:
    path = ROOT / "benchmarks/controller/held_out_v4.json"
    assert choose(choose_list.Args().seed) == read_instances(Args(instances=path))


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"seeds": 0}, "--seeds must be at least 1"),
    ({"tune_seeds": 11}, "--tune-seeds must be at most 10"),
    ({"only": (3,)}, "--only must be from 0 to 2, got 3"),
    ({"only": ()}, "no instance is left"),
    ({"controllers": ()}, "--controllers must name one"),
    ({"controllers": ("nobody",)}, "agent 'nobody' is unknown"),
    ({"controllers": ("ppo",)}, "ppo has still to learn"),
    ({"settings": "[]"}, "--settings must be a JSON object"),
    ({"settings": "n_layer=1"}, "--settings must be JSON"),
    ({"settings": '{"n_layers": 3}'}, "did you mean 'n_layer'"),
    ({"settings": '{"dense_interval": "x"}'}, "dense_interval must be an integer"),
    ({"settings": "[" * 100_000}, "--settings must be JSON"),
    ({"seeds": 10**9}, "--seeds must be at most 100000"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD_ARGUMENTS)
def test_a_wrong_argument_is_an_error_in_one_line(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        main(small_args(tmp_path, **overrides))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "--instances must be JSON"),
        ("{}", "--instances must be a JSON list of objects"),
        ('[{"corpus": "markov"}]', "--instances lacks n_layer, n_embd"),
        ('[{"depth": 3}]', "--instances has an unknown key 'depth'"),
    ],
    ids=lambda text: text[:10],
)
def test_a_wrong_list_of_instances_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises((TypeError, ValueError), match=message):
        read_instances(Args(instances=path))


def test_subsets() -> None:
    assert len(read_instances(Args())) == 28
    assert [i.lr_factor for i in read_instances(Args(quick=True))] == [1 / 30, 1, 30]
    (one,) = read_instances(Args(only=(27,)))
    assert one == HELD_OUT[27]


def test_every_method_runs_from_wrong_rates(tmp_path: Path) -> None:
    args = wrong_rates.Args(
        env="markov",
        methods=("wsd", CONTROLLER),
        factors=(0.1, 10.0),
        seeds=2,
        settings=SETTINGS,
        workers=1,
        jobs=tmp_path / "jobs",
        out=tmp_path / "out.json",
    )
    wrong_rates.main(args)
    result = json.loads(args.out.read_text())
    assert set(result["final_val_loss"]) == {"wsd", CONTROLLER}
    assert np.array(result["final_val_loss"]["wsd"]).shape == (2, 2)
    assert result["seeds"] == [5000, 5001]
    wrong_rates.main(replace(args, methods=("constant",)))
    both = json.loads(args.out.read_text())
    for name in ("final_val_loss", "diverged", "seconds", "provenance"):
        assert both[name].pop("constant") is not None
    assert both == result, "results of other methods on these runs stay"
    wrong_rates.main(replace(args, methods=("constant",), factors=(1.0,)))
    other = json.loads(args.out.read_text())
    assert set(other["final_val_loss"]) == {"constant"}, "results of other runs do not"
