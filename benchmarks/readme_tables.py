"""README's tables of the paper, of controllers, models and simulated training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.architectures import table as architecture_table
from benchmarks.controller_features import rows as feature_rows
from benchmarks.instance_jobs import ONE_SETTING, TUNED
from benchmarks.instance_report import goals_text, judged_table
from benchmarks.rule_choice import table as choice_table
from benchmarks.table_text import markdown, spread_text
from benchmarks.widths import table as width_table

CORPORA = ("shakespeare", "markov", "text8")
LAWS = tuple(f"{c}-{s}" for s in ("tiny", "mini") for c in CORPORA)
LEARNED_ON = LAWS[:3]  # by the learned controller
FINE_TUNED = "controller_fine_tuned"
LATER = "tuning_free_later"  # the second list of held-out tasks
THIRD = "tuning_free_third"  # the third
RESULTS = Path(__file__).resolve().parent / "results"


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
    """Return how much faster several workers are than one."""
    result = _read("scale_out.json")
    speedup = f"{spread_text(result['speedup'])} times as fast as one"
    return f"{result['settings']['workers']} workers finish the same jobs {speedup}."


def wrong_rates(name: str = "wrong_rates") -> str:
    """Return final losses from wrong initial rates, least to greatest seed."""
    result = _read(f"{name}.json")
    names = [_factor(factor) for factor in result["factors"]]
    rows = []
    for method, losses in result["final_val_loss"].items():
        cells = [f"{min(seeds):.2f} to {max(seeds):.2f}" for seeds in losses]
        rows.append(
            {"start LR / good LR": f"`{method}`"} | dict(zip(names, cells, strict=True))
        )
    return markdown(rows)


def widths() -> str:
    """Return the default controller on models of several widths."""
    files = ("widths.json", "widths_384.json")
    return markdown([row for name in files for row in width_table(_read(name))])


def tuning_free(folder: str = "tuning_free") -> str:
    """Return the default controller's table on held-out tasks, and its goals."""
    judged = _read(f"{folder}/tuning_free.json")["controllers"]["update_size"]
    return f"{judged_table(judged)}\n\n{goals_text(judged)}"


def tuning_free_cells(folder: str) -> str:
    """Return what is lost to tuned schedules on held-out tasks, per kind of task."""
    path = RESULTS / folder / "tuning_free.csv"
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
    """Return what narrow models end with, with and without the stall's mend."""
    return markdown(choice_table(_read("rule_choice.json")))


def tuning_cost() -> str:
    """Return after how many uses the rule, and a learned one, have paid for it."""
    result = _read("tuning_free/tuning_free.json")
    tuning = int(result["tuning_trainings_per_instance"])
    names = ("wrong_rates", "wrong_rates_markov", "wrong_rates_text8")
    spent = sum(
        len(seeds)
        for name in names
        for seeds in _read(f"{name}.json")["final_val_loss"]["update_size"]
    )
    uses = -(-spent // (tuning - 1))
    reports = [f"surrogate/{law}-report.json" for law in LEARNED_ON]
    fitted = sum(int(_read(name)["fitted_on"]) for name in reports)
    learned = _read(f"{FINE_TUNED}/report.json")
    real = sum(
        len(seen["final_val_loss"])
        for fresh in learned["rounds"]
        for seen in fresh.values()
    )
    later = -(-(fitted + real) // (tuning - 1))
    return (
        f"Tuning a schedule costs {tuning} trainings for each task, and the rule one. "
        f"The {spent} trainings from wrong rates above, by which it was checked, have "
        f"paid for themselves after {uses} tasks; the trials before them were not "
        "kept, and are not counted. The learned controller has cost the "
        f"{fitted} real trainings that its {len(reports)} laws are fitted to and the "
        f"{real} it was fine-tuned by, beside {learned['simulated_episodes']:,} "
        f"simulated ones: {later} tasks, were it as good."
    )


def foreign_loops() -> str:
    """Return how far the examples end from the same loops with their rate tuned."""
    rows = []
    for loop, own in _read("foreign_loops.json")["loops"].items():
        row = {
            "loop": f"`examples/{loop}.py`",
            "best of 8 rates": f"{own['tuned_rate']:g}",
            "val loss there": f"{sum(own['tuned']) / len(own['tuned']):.3f}",
        }
        for name in ("from 10 times too high", "from 10 times too low"):
            gap, worst = own[f"{name}, minus tuned"], max(own[name])
            row[name] = f"{gap:+.3f} (worst run ends at {worst:.3f})"
        rows.append(row)
    return markdown(rows)


def controller_cost() -> str:
    """Return what a decision costs, in updates of a plain loop."""
    rows = []
    for scale, found in _read("controller_cost.json").items():
        costs = found["in_updates"]
        update = costs["update, measured"]["median"] - 1.0
        rows.append(
            {
                "scale": f"`{scale}`",
                "an update, s": f"{found['update_seconds']['median']:.4f}",
                "copying model and optimizer, updates": spread_text(
                    costs["snapshot, same"], 3
                ),
                "putting them back, updates": spread_text(costs["undo, same"], 3),
                "measuring an update, updates": f"{update:+.3f}",
                "memory of the copy, weights": (
                    f"{found['snapshot_bytes_per_byte_of_weights']:.1f}"
                ),
            }
        )
    return markdown(rows)


def architectures() -> str:
    """Return speeds and learning rates of the models."""
    return architecture_table(_read("architectures.json"))


def _factor(factor: float) -> str:
    return f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"


def laws() -> str:
    """Return the errors of the law, and of published ones, on runs held out."""
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
    """Return how well laws know what the default rule proposes on them."""
    rows = []
    for task in LAWS:
        result = _read(f"surrogate/{task}-proposals.json")
        row = {"task": task.replace("-", " ")}
        for when in ("before_refitting", "after_refitting"):
            error = result[when]
            text = f"{error['mean_final_error']:.3f} ({error['worst_final_error']:.3f})"
            row[f"mean (worst) error {when.replace('_', ' ')}, nats"] = text
        apart = result["real_spread_of_two_seeds"]
        row["two seeds of a curve apart, mean (worst)"] = (
            f"{sum(apart) / len(apart):.3f} ({max(apart):.3f})"
        )
        row["curves"] = str(len(apart))
        rows.append(row)
    return markdown(rows)


def damage() -> str:
    """Return what simulated runs from wrong rates end with, beside real ones."""
    result = _read("surrogate/damage.json")
    columns = [_factor(factor) for factor in result["factors"]]
    rows = []
    for name, cells in result["cells"].items():
        row = {"start LR / good LR": name}
        for column, loss, ends in zip(
            columns, cells["mean"], cells["real"], strict=True
        ):
            real = " to ".join(dict.fromkeys(f"{end:.2f}" for end in ends))
            row[column] = f"{loss:.2f} ({real})"
        rows.append(row)
    return markdown(rows)


def controller_features() -> str:
    """Return what a learned controller loses without each thing that it sees."""
    return markdown(feature_rows(_read("controller_features.json")))


def fine_tuning() -> str:
    """Return how right the laws were about a controller's own real runs."""
    rows = []
    for number, found in enumerate(_read(f"{FINE_TUNED}/report.json")["rounds"]):
        for corpus, seen in found.items():
            losses = [loss for loss in seen["final_val_loss"] if loss is not None]
            row = {
                "round": str(number + 1),
                "corpus": corpus,
                "real runs": str(len(seen["final_val_loss"])),
                "their mean final loss": f"{mean(losses):.3f}",
            }
            for when in ("before", "after"):
                errors = seen[f"error_{when}_refitting"]
                row[f"error of the law {when} refitting"] = (
                    f"{mean(errors):.3f} ({max(errors):.3f})"
                )
            rows.append(row)
    return markdown(rows)


def fine_tuned() -> str:
    """Return what controllers end with on the same fresh runs."""
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
            {"through": name, "decisions per second": f"{speed['median']:,.0f}"}
            for name, speed in result["decisions_per_second"].items()
        ]
    )
