"""Tables of README and docs: the paper, controllers, models, simulated training."""

from __future__ import annotations

import csv
import json
from statistics import mean, median
from typing import Any

from benchmarks.controller.features import rows as feature_rows
from benchmarks.controller.instance_jobs import ONE_SETTING, TUNED
from benchmarks.controller.instance_report import judged_table
from benchmarks.controller.rule_choice import table as choice_table
from benchmarks.controller.widths import table as width_table
from benchmarks.estimates import Estimate
from benchmarks.paths import RESULTS
from benchmarks.speed.architectures import table as architecture_table
from benchmarks.table_text import estimate_text, markdown, spread_text

CORPORA = ("shakespeare", "markov", "text8")
LAWS = tuple(f"{c}-{s}" for s in ("tiny", "mini") for c in CORPORA)
LEARNED_ON = LAWS[:3]  # by the learned controller
FINE_TUNED = "controller_fine_tuned"
V2 = "tuning_free_v2"  # the second list of held-out tasks
V3 = "tuning_free_v3"  # the third


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return content


def paper() -> str:
    """Return the paper's Tables 1 and 2: ours, and below it what it printed."""
    path = RESULTS / "paper" / "mini" / "tables.csv"
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in found:
        key = row["table"], row["line"]
        own = rows.setdefault(key, {"table": row["table"], "line": row["line"]})
        value = float(row["best_val_loss"])
        error = float(row["best_val_loss_standard_error"])
        printed = row["best_val_loss_paper"]
        own[f"{row['dataset']}, `mini`"] = f"{value:.4f} ± {error:.4f}"
        own[f"{row['dataset']}, the paper"] = (
            f"{float(printed):.4f}" if printed else "not in it"
        )
    return markdown(list(rows.values()))


def optimum() -> str:
    """Return how far from the best sequence of actions agents end."""
    result = _read("surrogate/optimum.json")
    rows = []
    for name, runs in result["agents"].items():
        regrets = [run["regret"] for run in runs]
        seconds = [run["seconds"] for run in runs]
        rows.append(
            {
                "agent": f"`{name}`",
                "seeds": str(len(runs)),
                "largest regret, nats": f"{max(regrets):.4f}",
                "simulated episodes": f"{runs[0]['episodes']:,}",
                "seconds, the slowest": f"{max(seconds):.0f}",
            }
        )
    return markdown(rows)


def scale_out() -> str:
    """Return the seconds that one and several workers take for the same jobs."""
    result = _read("speed/scale_out.json")
    return markdown(
        [
            {
                "workers": workers,
                "seconds, median": f"{median(seconds):.1f}",
                "speedup, median (range)": (
                    "1" if workers == "1" else spread_text(result["speedup"])
                ),
            }
            for workers, seconds in result["seconds"].items()
        ]
    )


def wrong_rates(name: str = "wrong_rates") -> str:
    """Return final losses from wrong initial rates, least to greatest seed."""
    result = _read(f"controller/{name}.json")
    names = [_factor(factor) for factor in result["factors"]]
    rows = []
    for method, losses in result["final_val_loss"].items():
        cells = [f"{min(seeds):.2f} to {max(seeds):.2f}" for seeds in losses]
        rows.append(
            {"initial LR / good LR": f"`{method}`"}
            | dict(zip(names, cells, strict=True))
        )
    return markdown(rows)


def widths() -> str:
    """Return the default controller on models of several widths."""
    files = ("widths.json", "widths_384.json")
    rows = [row for name in files for row in width_table(_read(f"controller/{name}"))]
    names = {
        "best WSD peak": "best WSD peak LR",
        "val loss there": "its final val loss",
        "target 0.07, above that, mean (worst)": (
            "controller minus that, mean (worst), nats"
        ),
        "highest rate, target 0.07": "highest LR of the controller",
    }
    return markdown(_renamed(rows, names))


def _renamed(rows: list[dict[str, str]], names: dict[str, str]) -> list[dict[str, str]]:
    """Return `rows` with columns renamed; KeyError if a column is absent."""
    columns = [*rows[0]]
    for name in names:
        if name not in columns:
            raise KeyError(name)
    return [{names.get(k, k): value for k, value in row.items()} for row in rows]


def tuning_free(folder: str = "tuning_free") -> str:
    """Return every method's regret on a list of held-out tasks."""
    table = judged_table(_judged(folder))
    return table.replace(f"{FINE_TUNED}/policy.safetensors", "learned controller")


def _judged(folder: str) -> dict[str, Any]:
    judged: dict[str, Any] = _read(f"controller/{folder}/tuning_free.json")[
        "controllers"
    ]["update_size"]
    return judged


def controller() -> str:
    """Return the default controller's regret on each list of held-out tasks."""
    lists = {
        "1, no longer held out": "tuning_free",
        "2, no longer held out": V2,
        "3, held out": V3,
    }
    table = []
    for name, folder in lists.items():
        rows = {row["label"]: row for row in _judged(folder)["rows"]}
        table.append(
            {
                "list": name,
                "tasks": str(
                    len(_read(f"controller/{folder}/tuning_free.json")["instances"])
                ),
                "regret of the controller, nats (95 %)": _estimate(
                    rows["update_size"]["regret"]
                ),
                "worst tenth": _estimate(rows["update_size"]["worst_tenth"]),
                "one setting for all": f"{rows[ONE_SETTING]['regret']['value']:+.4f}",
                "schedule-free": f"{rows['schedule_free']['regret']['value']:+.4f}",
            }
        )
    return markdown(table)


def _estimate(estimate: dict[str, float]) -> str:
    return estimate_text(Estimate(**estimate))


def tuning_free_cells(folder: str) -> str:
    """Return what is lost to tuned schedules on held-out tasks, per kind of task."""
    path = RESULTS / "controller" / folder / "tuning_free.csv"
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    shown = ("update_size", ONE_SETTING, "schedule_free", "ramp_and_undo")
    labels = [label for label in shown if label in found[0]]
    regrets: dict[str, dict[str, list[float]]] = {}
    for row in found:
        kind = row["instance"].partition(" its,")[0] + " iterations"
        own = regrets.setdefault(kind, {label: [] for label in labels})
        for label in labels:
            own[label].append(float(row[label]) - float(row[TUNED]))
    return markdown(
        [
            {"task": kind} | {label: f"{mean(own[label]):+.3f}" for label in labels}
            for kind, own in regrets.items()
        ]
    )


def rule_choice() -> str:
    """Return final losses of narrow models with and without two parts of the rule."""
    names = {
        "weights 0, bound none": "neither",
        "weights 0, bound 1.5": "bound only",
        "weights 1.2, bound none": "weight term only",
        "weights 1.2, bound 1.5": "both (the default)",
    }
    return markdown(_renamed(choice_table(_read("controller/rule_choice.json")), names))


def tuning_cost() -> str:
    """Return the trainings that each way costs, and when it breaks even."""
    result = _read("controller/tuning_free/tuning_free.json")
    tuning = int(result["tuning_trainings_per_instance"])
    names = ("wrong_rates", "wrong_rates_markov", "wrong_rates_text8")
    checks = sum(
        len(seeds)
        for name in names
        for seeds in _read(f"controller/{name}.json")["final_val_loss"]["update_size"]
    )
    reports = [f"surrogate/{law}-report.json" for law in LEARNED_ON]
    fitted = sum(int(_read(name)["fitted_on"]) for name in reports)
    learned = _read(f"{FINE_TUNED}/report.json")
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


def foreign_loops() -> str:
    """Return the examples' final losses minus those with the best of 8 LRs."""
    rows = []
    for loop, own in _read("controller/foreign_loops.json")["loops"].items():
        row = {
            "loop": f"`examples/{loop}.py`",
            "best of 8 LRs": f"{own['tuned_rate']:g}",
            "its final val loss": f"{sum(own['tuned']) / len(own['tuned']):.3f}",
        }
        for name in ("from 10 times too high", "from 10 times too low"):
            gap, worst = own[f"{name}, minus tuned"], max(own[name])
            row[name] = f"{gap:+.3f} (worst run {worst:.3f})"
        rows.append(row)
    return markdown(rows)


def controller_cost() -> str:
    """Return the costs of a decision, in updates of a plain loop."""
    rows = []
    for scale, found in _read("controller/controller_cost.json").items():
        costs = found["in_updates"]
        update = costs["update, measured"]["median"] - 1.0
        rows.append(
            {
                "scale": f"`{scale}`",
                "an update, s": f"{found['update_seconds']['median']:.4f}",
                "copying model and optimizer, updates": spread_text(
                    costs["snapshot, same"], 3
                ),
                "restoring them, updates": spread_text(costs["undo, same"], 3),
                "measuring an update, updates": f"{update:+.3f}",
                "memory of the copy, in sizes of the weights": (
                    f"{found['snapshot_bytes_per_byte_of_weights']:.1f}"
                ),
            }
        )
    return markdown(rows)


def architectures() -> str:
    """Return speeds and learning rates of the models."""
    return (
        architecture_table(_read("speed/architectures.json"))
        .replace("| val loss there |", "| its final val loss |")
        .replace("| runs per rate |", "| runs per LR |")
    )


def _factor(factor: float) -> str:
    return f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"


def laws() -> str:
    """Return the errors of our law and of published ones on held-out runs."""
    found = [
        (task, name, law["held_out"])
        for task in LAWS
        for name, law in _read(f"surrogate/{task}-report.json")["laws"].items()
    ]
    rows = []
    for task, name, held_out in found:
        rows.append(
            {
                "task": task.replace("-", " "),
                "law": name,
                "mean error of the final loss, nats": (
                    f"{held_out['mean_final_error']:.3f}"
                ),
                "median": f"{held_out['median_final_error']:.3f}",
                "worst": f"{held_out['worst_final_error']:.3f}",
                "rank correlation": f"{held_out['rank_correlation']:.2f}",
                "R2 of whole curves": f"{held_out['r2_curves']:.2f}",
                "runs": str(held_out["runs"]),
            }
        )
    return markdown(rows)


def proposals() -> str:
    """Return the laws' errors on the curves the default controller finds on them."""
    rows = []
    for task in LAWS:
        result = _read(f"surrogate/{task}-proposals.json")
        row = {"task": task.replace("-", " ")}
        for when in ("before_refitting", "after_refitting"):
            error = result[when]
            text = f"{error['mean_final_error']:.3f} ({error['worst_final_error']:.3f})"
            row[f"mean (worst) error {when.replace('_', ' ')}, nats"] = text
        apart = result["real_spread_of_two_seeds"]
        row["difference between two seeds, mean (worst)"] = (
            f"{sum(apart) / len(apart):.3f} ({max(apart):.3f})"
        )
        row["curves"] = str(len(apart))
        rows.append(row)
    return markdown(rows)


def damage() -> str:
    """Return final losses from wrong initial LRs, simulated (and real)."""
    result = _read("surrogate/damage.json")
    columns = [_factor(factor) for factor in result["factors"]]
    rows = []
    for name, cells in result["cells"].items():
        row = {"initial LR / good LR": name}
        for column, loss, ends in zip(
            columns, cells["mean"], cells["real"], strict=True
        ):
            real = " to ".join(dict.fromkeys(f"{end:.2f}" for end in ends))
            row[column] = f"{loss:.2f} ({real})"
        rows.append(row)
    return markdown(rows)


def controller_features() -> str:
    """Return a learned controller's loss without single features."""
    learners = {
        "the four": "all four features",
        "with the absolute rate": "with the absolute LR",
        "no way back": "without undo",
        "with a memory": "recurrent PPO",
        "a table": "tabular Q-learning on (LR, decision), without undo",
    }
    columns = {
        "above the rule, nats, mean of runs": "minus the rule, nats, mean of runs",
        "median run": "minus the rule, nats, median run",
        "learners": "seeds",
    }
    rows = feature_rows(_read("controller/controller_features.json"))
    for row in rows:
        row["learner"] = learners.get(row["learner"], row["learner"])
    return markdown(_renamed(rows, columns))


def fine_tuning() -> str:
    """Return the laws' errors on the real runs of a learned controller."""
    rows = []
    for number, found in enumerate(_read(f"{FINE_TUNED}/report.json")["rounds"]):
        for corpus, seen in found.items():
            losses = [loss for loss in seen["final_val_loss"] if loss is not None]
            row = {
                "round": str(number + 1),
                "corpus": corpus,
                "real runs": str(len(seen["final_val_loss"])),
                "mean final loss": f"{mean(losses):.3f}",
            }
            for when in ("before", "after"):
                errors = seen[f"error_{when}_refitting"]
                row[f"error of the law {when} refitting"] = (
                    f"{mean(errors):.3f} ({max(errors):.3f})"
                )
            rows.append(row)
    return markdown(rows)


def fine_tuned() -> str:
    """Return the final losses of controllers on the same fresh runs."""
    result = _read(f"{FINE_TUNED}/report.json")["final_val_loss"]
    rows = []
    for name in result["real"]:
        row = {"controller": "after fine-tuning" if name == "controller" else name}
        for kind, title in (("surrogate", "simulated"), ("real", "real")):
            losses = result[kind][name]
            head = f"{len(losses)} {title} runs, mean (median, worst)"
            row[head] = f"{mean(losses):.3f} ({median(losses):.3f}, {max(losses):.3f})"
        rows.append(row)
    return markdown(rows)


def surrogate_speed() -> str:
    """Return decisions per second of simulated training."""
    result = _read("surrogate/speed.json")
    return markdown(
        [
            {"interface": name, "decisions per second": f"{speed['median']:,.0f}"}
            for name, speed in result["decisions_per_second"].items()
        ]
    )
