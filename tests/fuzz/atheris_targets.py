"""Coverage-guided fuzzing of lr_gym with atheris, which the project does not depend on.

    pip install atheris
    PYTHONPATH=. python tests/fuzz/atheris_targets.py laws -max_total_time=600 corpus/

The first argument is a target of `TARGETS`, the others are libFuzzer's. The targets are
the tests of this folder: hypothesis turns the fuzzer's bytes into the tests' inputs,
which needs a few hundred bytes. So `corpus/` should start with some files of that size,
of random bytes. A crash ends the run, and libFuzzer keeps its input in a file, which
the same command reproduces with the file in place of the folder.
"""

from __future__ import annotations

import importlib
import sys
import warnings

TARGETS = {  # the test that receives the fuzzer's bytes
    "laws": "test_law_files:test_a_damaged_law_is_refused_or_simulates",
    "texts": "test_corpora:test_a_text_is_refused_or_trained_on",
    "archives": "test_corpora:test_a_damaged_archive_is_refused_or_read",
    "tables": "test_q_tables:test_a_damaged_table_is_refused_or_acts",
    "policies": "test_policy_files:test_a_damaged_policy_is_refused_or_valid",
    "states": "test_controller:test_a_damaged_state_is_refused_or_continues",
    "state_files": "test_controller:test_a_damaged_file_is_refused_or_loaded",
    "metrics": "test_controller:test_metrics",
    "controller": "test_controller:test_keywords",
    "rules": "test_controller:test_parameters_of_rules",
    "real": "test_make:test_real_training",
    "real_families": "test_make:test_real_families",
    "real_populations": "test_make:test_real_populations",
    "simulated": "test_make:test_simulated_training",
    "simulated_families": "test_make:test_simulated_families",
    "simulated_populations": "test_make:test_simulated_populations",
    "stable_baselines": "test_make:test_stable_baselines",
    "reset": "test_reset_and_step:test_reset_of_one",
    "reset_two": "test_reset_and_step:test_reset_of_two",
    "actions": "test_reset_and_step:test_actions",
    "records": "test_results:test_a_damaged_record_is_refused_or_usable",
    "results": "test_results:test_a_damaged_result_file_is_refused_or_read",
    "instances": "test_results:test_a_damaged_list_of_instances_is_refused_or_read",
    "settings": "test_results:test_damaged_settings_are_refused_or_read",
    "arguments": "test_results:test_arguments_of_a_comparison",
    "training": "test_wrapped_training:test_returned_values",
    "runs": "test_results:test_a_damaged_file_of_runs_is_refused_or_read",
}


def main() -> None:
    """Fuzz the target that the command line names."""
    import atheris  # not a dependency: pytest imports this module, too
    import torch._dynamo  # noqa: F401 - the first optimizer would take seconds

    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        raise SystemExit(f"error: name one of {', '.join(TARGETS)}")
    warnings.simplefilter("error")
    module, _, test = TARGETS[name].partition(":")
    with atheris.instrument_imports(include=["lr_gym"]):
        tests = importlib.import_module(f"tests.fuzz.{module}")
    atheris.Setup(sys.argv, getattr(tests, test).hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
