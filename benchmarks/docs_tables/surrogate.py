"""Tables of simulated training: accuracy of the laws, learned controllers, speed."""

from __future__ import annotations

from statistics import mean, median

from benchmarks.controller.features import rows as feature_rows
from benchmarks.docs_tables.controller import FINE_TUNED, LAWS, factor_text
from benchmarks.results_file import committed
from benchmarks.surrogate import intervals, public_curves
from benchmarks.table_text import markdown


def laws() -> str:
    """Return the errors of our law and of published laws on held-out runs."""
    rows = []
    for task in LAWS:
        for name, law in committed(f"surrogate/{task}-report.json")["laws"].items():
            errors = law["held_out"]
            rows.append(
                {
                    "task": task.replace("-", " "),
                    "law": name,
                    "mean error of the final loss, nats": (
                        f"{errors['mean_final_error']:.3f}"
                    ),
                    "median": f"{errors['median_final_error']:.3f}",
                    "worst": f"{errors['worst_final_error']:.3f}",
                    "rank correlation": f"{errors['rank_correlation']:.2f}",
                    "R2 of whole curves": f"{errors['r2_curves']:.2f}",
                    "runs": str(errors["runs"]),
                }
            )
    return markdown(rows)


def published_curves() -> str:
    """Return the errors on published curves of larger models."""
    return public_curves.table(committed("surrogate/public_curves.json")["models"])


def held_out_intervals() -> str:
    """Return how often held-out losses lie in the laws' intervals."""
    return intervals.table(committed("surrogate/intervals.json")["tasks"])


def proposals() -> str:
    """Return the errors of the laws on the curves that the default rule chooses."""
    rows = []
    for task in LAWS:
        result = committed(f"surrogate/{task}-proposals.json")
        row = {"task": task.replace("-", " ")}
        for when in ("before_refitting", "after_refitting"):
            error = result[when]
            text = f"{error['mean_final_error']:.3f} ({error['worst_final_error']:.3f})"
            row[f"mean (worst) error {when.replace('_', ' ')}, nats"] = text
        spreads = result["real_spread_of_two_seeds"]
        row["difference between two seeds, mean (worst)"] = (
            f"{mean(spreads):.3f} ({max(spreads):.3f})"
        )
        row["curves"] = str(len(spreads))
        rows.append(row)
    return markdown(rows)


def damage() -> str:
    """Return final losses from wrong initial LRs, simulated (and real)."""
    result = committed("surrogate/damage.json")
    columns = [factor_text(factor) for factor in result["factors"]]
    rows = []
    for name, cells in result["cells"].items():
        row = {"initial LR / good LR": name}
        for column, simulated, real in zip(
            columns, cells["mean"], cells["real"], strict=True
        ):
            real_text = " to ".join(dict.fromkeys(f"{loss:.2f}" for loss in real))
            row[column] = f"{simulated:.2f} ({real_text})"
        rows.append(row)
    return markdown(rows)


def optimum() -> str:
    """Return the regret of agents against the best sequence of actions."""
    rows = []
    for name, runs in committed("surrogate/optimum.json")["agents"].items():
        rows.append(
            {
                "agent": f"`{name}`",
                "seeds": str(len(runs)),
                "largest regret, nats": f"{max(run['regret'] for run in runs):.4f}",
                "simulated episodes": f"{runs[0]['episodes']:,}",
                "seconds, the slowest": f"{max(run['seconds'] for run in runs):.0f}",
            }
        )
    return markdown(rows)


def features() -> str:
    """Return the loss of a learned controller with other features."""
    return markdown(feature_rows(committed("controller/controller_features.json")))


def fine_tuning() -> str:
    """Return the errors of the laws on the real runs of a learned controller."""
    rows = []
    for number, corpora in enumerate(committed(f"{FINE_TUNED}/report.json")["rounds"]):
        for corpus, runs in corpora.items():
            losses = [loss for loss in runs["final_val_loss"] if loss is not None]
            row = {
                "round": str(number + 1),
                "corpus": corpus,
                "real runs": str(len(runs["final_val_loss"])),
                "mean final loss": f"{mean(losses):.3f}",
            }
            for when in ("before", "after"):
                errors = runs[f"error_{when}_refitting"]
                row[f"error of the law {when} refitting"] = (
                    f"{mean(errors):.3f} ({max(errors):.3f})"
                )
            rows.append(row)
    return markdown(rows)


def fine_tuned() -> str:
    """Return the final losses of controllers on the same fresh runs."""
    final_losses = committed(f"{FINE_TUNED}/report.json")["final_val_loss"]
    rows = []
    for name in final_losses["real"]:
        row = {"controller": "after fine-tuning" if name == "controller" else name}
        for kind, title in (("surrogate", "simulated"), ("real", "real")):
            losses = final_losses[kind][name]
            column = f"{len(losses)} {title} runs, mean (median, worst)"
            row[column] = (
                f"{mean(losses):.3f} ({median(losses):.3f}, {max(losses):.3f})"
            )
        rows.append(row)
    return markdown(rows)


def speed() -> str:
    """Return decisions per second of simulated training."""
    result = committed("surrogate/speed.json")
    return markdown(
        [
            {"interface": name, "decisions per second": f"{speed['median']:,.0f}"}
            for name, speed in result["decisions_per_second"].items()
        ]
    )
