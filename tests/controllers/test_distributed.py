"""Several processes: all take the decisions that one process with all data takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import distributed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return distributed.run_processes(tmp_path_factory.mktemp("processes"))


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Return whether two models are equal to the last bit."""
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("spoil", [False, True])
@pytest.mark.parametrize("kind", distributed.KINDS)
def test_all_processes_train_alike(
    processes: list[dict[str, Any]], kind: str, spoil: bool
) -> None:
    name = f"{kind}, spoiled" if spoil else kind
    first, second = (process["trainings"][name] for process in processes)
    assert first["rates"] == second["rates"]
    assert equal(first["weights"], second["weights"])
    alone = distributed.train("one process", spoil=spoil)
    assert np.allclose(first["rates"], alone.rates, rtol=1e-4, atol=0.0)
    assert max(alone.rates) > 50.0 * alone.rates[0]  # the controller did something
    assert first["undone"] == second["undone"] == alone.undone


@pytest.mark.parametrize("kind", distributed.KINDS)
def test_a_bad_evaluation_of_one_process_undoes_all(
    processes: list[dict[str, Any]], kind: str
) -> None:
    for process in processes:
        training = process["trainings"][f"{kind}, spoiled"]
        assert np.flatnonzero(training["undone"]).tolist() == [distributed.SPOILED]
        assert equal(training["after"], training["good"])


def test_a_measure_does_not_depend_on_how_a_weight_is_split(
    processes: list[dict[str, Any]],
) -> None:
    alone = distributed.measure_ones()
    for process in processes:
        for split, measure in process["measures"].items():
            assert measure == pytest.approx(alone, rel=1e-6), split


def test_unequal_weights_are_an_error_in_all_processes(
    processes: list[dict[str, Any]],
) -> None:
    for process in processes:
        assert "every process must train the whole model" in process["unequal"]


def test_saving_a_part_names_the_remedy(processes: list[dict[str, Any]]) -> None:
    for process in processes:
        assert "torch.save in every process" in process["saving"]
