"""A sample of a result's runs, run again and compared with what was published."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from lr_gym.trainers.base import FloatArray

ROUNDING = 1e-6  # largest relative difference that counts as rounding
CONFIDENCE = 0.99  # some 40 results are tested, so 95 % would fail two by chance

SAME_BITS = "the same to the last bit"
SAME_ROUNDED = "the same up to rounding"
FITTED_ALIKE = "predictions alike"
WITHIN_NOISE = "within noise"
DIFFERS = "differs"
VERDICTS = (SAME_BITS, SAME_ROUNDED, FITTED_ALIKE, WITHIN_NOISE, DIFFERS)


@dataclass(frozen=True)
class Run:
    """A part of a result that can be run again alone.

    Attributes:
        key: Its name in the result.
        published: Its numbers in the result; NaN marks a diverged run.
        again: Runs it; returns the same numbers as they are today.
        seconds: Seconds it takes, if they are known.
        noisy: Whether another processor's rounding grows, as in training. If not, only
            rounding may differ.
        tolerance: Of predictions of a law that is fitted again, where rounding decides
            between almost equal fits: the largest root mean square of differences.
        always: Whether it is in every sample, because it takes seconds.
    """

    key: str
    published: Sequence[float]
    again: Callable[[], Sequence[float]]
    seconds: float = 0.0
    noisy: bool = True
    tolerance: float = 0.0
    always: bool = False


def sample(runs: Sequence[Run], share: float, max_seconds: float) -> list[Run]:
    """Return a random share of the runs, at least one; the same in every call.

    Args:
        runs: All runs of a result.
        share: Of the runs, between 0 and 1.
        max_seconds: Runs that take longer in all are left out, but one is taken.
    """
    always = [run for run in runs if run.always]
    others = [run for run in runs if not run.always]
    if not others:
        return always
    order = np.random.default_rng(0).permutation(len(others))
    chosen: list[Run] = []
    for run in (others[place] for place in order):
        if len(chosen) == math.ceil(share * len(others)):
            break
        if sum(other.seconds for other in chosen) + run.seconds <= max_seconds:
            chosen.append(run)
    if always or chosen:
        return always + chosen
    return [min(others, key=lambda run: run.seconds)]


def run_again(chosen: Sequence[Run], max_seconds: float) -> dict[str, Any]:
    """Run the sample; return the comparison, ready for JSON.

    No further run starts after `max_seconds` of the processor.
    """
    started = time.process_time()
    done: list[Run] = []
    today: list[FloatArray] = []
    for run in chosen:
        if done and time.process_time() - started > max_seconds:
            break
        today.append(np.asarray(run.again(), dtype=np.float64))
        done.append(run)
    entry: dict[str, Any] = {
        "runs": [run.key for run in done],
        "seconds": round(time.process_time() - started, 1),
    }
    pairs: dict[str, list[tuple[FloatArray, FloatArray]]] = {}
    for run, numbers in zip(done, today, strict=True):
        kind = "fitted" if run.tolerance else "noisy" if run.noisy else "exact"
        published = np.asarray(run.published, dtype=np.float64)
        pairs.setdefault(kind, []).append((published, numbers))
    tolerances = {"fitted": max(run.tolerance for run in done)}
    for kind, group in pairs.items():
        before, after = zip(*group, strict=True)
        tolerance = tolerances.get(kind, 0.0)
        entry[kind] = compare(before, after, noisy=kind == "noisy", tolerance=tolerance)
    verdicts = [part["verdict"] for part in entry.values() if isinstance(part, dict)]
    return entry | {"verdict": max(verdicts, key=VERDICTS.index)}


def compare(
    published: Sequence[FloatArray],
    today: Sequence[FloatArray],
    *,
    noisy: bool,
    tolerance: float = 0.0,
) -> dict[str, Any]:
    """Return differences of numbers, today minus published, and the verdict.

    Numbers that are equal to the last bit, or all but for rounding, are the same. Else,
    with a `tolerance`, the root mean square of the differences decides. Else, if
    `noisy`, they are within noise if the `CONFIDENCE` interval of their mean difference
    includes 0 (paired t-test); a single pair says nothing.
    """
    before, after = np.concatenate(published), np.concatenate(today)
    if before.shape != after.shape:
        return {"numbers": len(before), "equal": 0, "verdict": DIFFERS}
    diverged = np.isnan(before), np.isnan(after)
    equal = (before == after) | (diverged[0] & diverged[1])
    result: dict[str, Any] = {"numbers": len(before), "equal": int(equal.sum())}
    if equal.all():
        return result | {"verdict": SAME_BITS}
    both = ~(diverged[0] | diverged[1])
    difference = (after - before)[both]
    result["diverged"] = [int(group.sum()) for group in diverged]
    result["largest"] = float(np.abs(difference).max(initial=0.0))
    result["mean"] = float(difference.mean()) if len(difference) else 0.0
    if both.sum() + (diverged[0] & diverged[1]).sum() < len(before):
        return result | {"verdict": DIFFERS}  # one of a pair diverged
    if np.allclose(after[both], before[both], rtol=ROUNDING, atol=0.0):
        return result | {"verdict": SAME_ROUNDED}
    if tolerance:
        result["rms"] = float(np.sqrt(np.mean(difference**2)))
        alike = result["rms"] <= tolerance
        return result | {"verdict": FITTED_ALIKE if alike else DIFFERS}
    if not noisy or len(difference) < 2:
        return result | {"verdict": DIFFERS}
    test = stats.ttest_1samp(difference, 0.0).confidence_interval(CONFIDENCE)
    result["interval"] = [float(test.low), float(test.high)]
    within = test.low <= 0.0 <= test.high
    return result | {"verdict": WITHIN_NOISE if within else DIFFERS}
