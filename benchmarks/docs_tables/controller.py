"""Tables of the default controller: held-out lists, wrong rates, widths, its costs."""

from __future__ import annotations

import csv
from statistics import mean
from typing import Any

from benchmarks.controller.instance_jobs import ONE_SETTING, TUNED
from benchmarks.controller.instance_report import judged_table
from benchmarks.controller.rule_choice import table as rule_choice_table
from benchmarks.controller.users import compare as users
from benchmarks.controller.users.field_cases import value_text
from benchmarks.controller.widths import table as width_table
from benchmarks.estimates import Estimate
from benchmarks.paths import RESULTS
from benchmarks.results_file import committed
from benchmarks.table_text import estimate_text, markdown, spread_text

CORPORA = ("shakespeare", "markov", "text8")
LAWS = tuple(f"{c}-{s}" for s in ("tiny", "mini") for c in CORPORA)
LEARNED_ON = LAWS[:3]  # by the learned controller
FINE_TUNED = "controller_fine_tuned"
LISTS = {  # of tasks, and the folders of their results
    "1": "tuning_free",
    "2": "tuning_free_v2",
    "3": "tuning_free_v3",
}
SHOWN_RIVALS = ("left alone", "greedy", "schedule-free", "prodigy", "adalrs")
STARTS = ("30 times too low", "about right", "30 times too high")
CONTROLLERS = {"controller": "`ControllerLR`", "update_size": "earlier rule"}
SHOWN_BY_KIND = (
    "controller",
    "update_size",
    ONE_SETTING,
    "schedule_free",
    "ramp_and_undo",
)


def factor_text(factor: float) -> str:
    """Return a multiple of the good learning rate; below 1 as a fraction."""
    return f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"


def wrong_rates(name: str = "wrong_rates") -> str:
    """Return final losses from wrong initial LRs, from the best to the worst seed."""
    result = committed(f"controller/{name}.json")
    columns = [factor_text(factor) for factor in result["factors"]]
    rows = []
    for method, losses in result["final_val_loss"].items():
        cells = [f"{min(seeds):.2f} to {max(seeds):.2f}" for seeds in losses]
        rows.append(
            {"initial LR / good LR": f"`{method}`"}
            | dict(zip(columns, cells, strict=True))
        )
    return markdown(rows)


def widths() -> str:
    """Return the default controller on models of several widths."""
    files = ("widths.json", "widths_384.json")
    return markdown(
        [row for name in files for row in width_table(committed(f"controller/{name}"))]
    )


def controller() -> str:
    """Return the regrets of both controllers on each list of tasks."""
    table = []
    for name, folder in LISTS.items():
        result = _tuning_free(folder)
        rows = {row["label"]: row for row in _judged(result)["rows"]}
        line = {"list": name, "tasks": str(len(result["instances"]))}
        for label, title in CONTROLLERS.items():
            for key, what in (
                ("regret", "regret, nats"),
                ("worst_tenth", "worst tenth"),
            ):
                cell = "not yet run"
                if label in rows:
                    cell = estimate_text(Estimate(**rows[label][key]))
                line[f"{title}: {what}"] = cell
        line["one setting for all"] = f"{rows[ONE_SETTING]['regret']['value']:+.4f}"
        line["schedule-free"] = f"{rows['schedule_free']['regret']['value']:+.4f}"
        table.append(line)
    return markdown(table)


def tuning_free(folder: str = "tuning_free") -> str:
    """Return the regret of every method on a list of held-out tasks."""
    table = judged_table(_judged(_tuning_free(folder)))
    return table.replace(f"{FINE_TUNED}/policy.safetensors", "learned controller")


def tuning_free_cells(folder: str) -> str:
    """Return the mean regret on held-out tasks, by kind of task."""
    path = RESULTS / "controller" / folder / "tuning_free.csv"
    with path.open(encoding="utf-8", newline="") as file:
        losses = list(csv.DictReader(file))
    labels = [label for label in SHOWN_BY_KIND if label in losses[0]]
    regrets: dict[str, dict[str, list[float]]] = {}
    for row in losses:
        kind = row["instance"].partition(" its,")[0] + " iterations"
        by_label = regrets.setdefault(kind, {label: [] for label in labels})
        for label in labels:
            by_label[label].append(float(row[label]) - float(row[TUNED]))
    return markdown(
        [
            {"task": kind}
            | {label: f"{mean(by_label[label]):+.3f}" for label in labels}
            for kind, by_label in regrets.items()
        ]
    )


def _tuning_free(folder: str) -> dict[str, Any]:
    return committed(f"controller/{folder}/tuning_free.json")


def _judged(result: dict[str, Any]) -> dict[str, Any]:
    judged: dict[str, Any] = result["controllers"]["update_size"]
    return judged


def tuning_cost() -> str:
    """Return the trainings that each method costs, and when it breaks even."""
    result = _tuning_free("tuning_free")
    tuning = int(result["tuning_trainings_per_instance"])
    names = ("wrong_rates", "wrong_rates_markov", "wrong_rates_text8")
    checks = sum(
        len(seeds)
        for name in names
        for seeds in committed(f"controller/{name}.json")["final_val_loss"][
            "update_size"
        ]
    )
    reports = [f"surrogate/{law}-report.json" for law in LEARNED_ON]
    fitted = sum(int(committed(name)["fitted_on"]) for name in reports)
    learned = committed(f"{FINE_TUNED}/report.json")
    fine_tuning = sum(
        len(corpus["final_val_loss"])
        for report in learned["rounds"]
        for corpus in report.values()
    )
    saved = tuning - 1  # trainings per task
    return markdown(
        [
            {
                "method": "a schedule tuned per task",
                "trainings per task": str(tuning),
                "trainings spent once": "0",
                "breaks even after": "",
            },
            {
                "method": "the update-size rule",
                "trainings per task": "1",
                "trainings spent once": f"{checks}, to check it from wrong rates",
                "breaks even after": f"{-(-checks // saved)} tasks",
            },
            {
                "method": "the learned controller",
                "trainings per task": "1",
                "trainings spent once": (
                    f"{fitted} to fit {len(reports)} laws, {fine_tuning} to fine-tune, "
                    f"and {learned['simulated_episodes']:,} simulated"
                ),
                "breaks even after": (
                    f"{-(-(fitted + fine_tuning) // saved)} tasks, if it matched the "
                    "rule"
                ),
            },
        ]
    )


def rule_choice() -> str:
    """Return final losses of narrow models with and without two parts of the rule."""
    return markdown(rule_choice_table(committed("controller/rule_choice.json")))


def foreign_loops() -> str:
    """Return the examples' final losses minus those with the best of 8 LRs."""
    rows = []
    for loop, losses in committed("controller/foreign_loops.json")["loops"].items():
        row = {
            "loop": f"`examples/{loop}.py`",
            "best of 8 LRs": f"{losses['tuned_rate']:g}",
            "its final val loss": f"{mean(losses['tuned']):.3f}",
        }
        for name in ("from 10 times too high", "from 10 times too low"):
            gap, worst = losses[f"{name}, minus tuned"], max(losses[name])
            row[name] = f"{gap:+.3f} (worst run {worst:.3f})"
        rows.append(row)
    return markdown(rows)


def controller_cost() -> str:
    """Return what the controller adds to an update, and its copies' time and memory."""
    rows = []
    for case, result in committed("controller/controller_cost.json").items():
        seconds, ratios = result["seconds"], result["in_updates"]
        rows.append(
            {
                "weights": f"`{case}`, {result['dtype']}",
                "timed": result["timed"],
                "without it, s": f"{seconds['update']['median']:.3f}",
                "added during the climb": _percent(ratios["hooks in the climb"], 1),
                "added after it": _percent(ratios["hooks after it"], 2),
                "samples, MB": f"{result['sample_bytes'] / 1e6:.1f}",
                "copy for an undo, s": f"{seconds['snapshot, same']['median']:.3f}",
                "undo, s": f"{seconds['undo, same']['median']:.3f}",
                "the copy, MB": f"{result['snapshot_bytes'] / 1e6:.0f}",
            }
        )
    return markdown(rows)


def _percent(share: dict[str, float], digits: int) -> str:
    """Return a share with its sample's minimum and maximum, in percent."""
    return f"{spread_text({k: 100.0 * x for k, x in share.items()}, digits)} %"


def users_tasks(half: str) -> str:
    """Return the excess of every rival on a half of the users' tasks."""
    return markdown(users.table(committed(f"controller/users/{half}.json")))


def users_headline() -> str:
    """Return the interquartile mean excess on the judged tasks, by start and method."""
    rows = users.table(committed("controller/users/judged.json"))
    means = {row["method"]: row["interquartile mean"] for row in rows}
    names = {users.CONTROLLER: "`ControllerLR`"} | {name: name for name in SHOWN_RIVALS}
    return markdown(
        [
            {"the first learning rate is": start}
            | {
                title: means[users.row_name(method, share)]
                for method, title in names.items()
            }
            for share, start in zip(users.STARTS, STARTS, strict=True)
        ]
    )


def field_cases() -> str:
    """Return final losses of reported cases, with both controllers."""
    rows = committed("controller/users/field_cases.json")["mean_final_loss"]
    return markdown([{k: value_text(v) for k, v in row.items()} for row in rows])


def forgetting() -> str:
    """Return losses on the new and the old text after fine-tuning."""
    rows = committed("controller/users/forgetting.json")["rows"]
    return markdown([{k: value_text(v) for k, v in row.items()} for row in rows])
