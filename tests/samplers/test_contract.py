"""What every sampler promises, built-in or not."""

from __future__ import annotations

import random

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from evomerge.samplers import sampler_names
from tests.samplers.searches import (
    MIXED,
    add_baselines,
    journal,
    new_study,
    params_of,
    run_one_by_one,
    run_out_of_order,
    sampler_for,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = [
    pytest.mark.parametrize("n_objectives", [1, 2]),
    pytest.mark.parametrize("name", sorted(sampler_names().keys() - {"auto"})),
    pytest.mark.filterwarnings("error"),
]


@pytest.fixture
def options(name):
    """Options with which a sampler is past its random start after a few trials."""
    by_name = {
        "gp": {"n_startup_trials": 14},
        "nsga2": {"population_size": 8},
        "nsga3": {"population_size": 8},
        "pycma": {"popsize": 6},
    }
    return by_name.get(name, {})


def test_sampler_survives_failures_foreign_trials_and_results_out_of_order(
    name, n_objectives, options
):
    def run():
        study = new_study(sampler_for(name, n_objectives, **options), n_objectives)
        add_baselines(study, n_objectives)
        run_out_of_order(study, 30)
        return study

    study = run()
    searched = study.trials[3:]
    assert len(study.get_trials(states=[TrialState.FAIL])) == 1
    assert all(MIXED.holds(trial.params) for trial in searched)
    assert len({trial.params["method"] for trial in searched}) > 1
    assert all(
        ("density" in trial.params) == (trial.params["method"] != "linear") for trial in searched
    )
    assert params_of(run()) == params_of(study)


def test_killed_and_resumed_search_equals_the_uninterrupted_one(
    name, n_objectives, options, tmp_path
):
    with journal(tmp_path / "whole") as storage:
        whole = new_study(sampler_for(name, n_objectives, **options), n_objectives, storage)
        add_baselines(whole, n_objectives)
        run_one_by_one(whole, 26)

    for stop in (17, 26):
        with journal(tmp_path / "parts") as storage:
            part = new_study(sampler_for(name, n_objectives, **options), n_objectives, storage)
            if not part.trials:
                add_baselines(part, n_objectives)
            run_one_by_one(part, stop)
    assert params_of(part) == params_of(whole)


def test_another_seed_gives_another_search(name, n_objectives, options):
    studies = []
    for seed in (1, 2):
        studies.append(new_study(sampler_for(name, n_objectives, seed=seed, **options), n_objectives))
        run_one_by_one(studies[-1], 3)
    assert params_of(studies[0]) != params_of(studies[1])


def test_sampler_ignores_the_global_random_state(name, n_objectives, options):
    studies = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)
        random.seed(global_seed)
        studies.append(new_study(sampler_for(name, n_objectives, **options), n_objectives))
        run_one_by_one(studies[-1], 14)
    assert params_of(studies[0]) == params_of(studies[1])
