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
    new_study,
    open_journal,
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


def options_for(name, n_trials):
    """Choose options with which a sampler is past its random start before the search ends."""
    by_name = {
        "gp": {"n_startup_trials": n_trials - 3},  # its asks are what takes time here
        "nsga2": {"population_size": 5},
        "nsga3": {"population_size": 5},
        "pycma": {"popsize": 5},
        "tpe": {"n_startup_trials": 6},
    }
    return by_name.get(name, {})


def test_search_survives_failures_foreign_trials_and_results_out_of_order(name, n_objectives):
    def run(global_seed):
        np.random.seed(global_seed)
        random.seed(global_seed)
        sampler = sampler_for(name, n_objectives, **options_for(name, 30))
        study = new_study(sampler, n_objectives)
        add_baselines(study, n_objectives)
        run_out_of_order(study, 30)
        return study

    study = run(1)
    searched = study.trials[3:]
    assert len(study.get_trials(states=[TrialState.FAIL])) == 1
    assert all(MIXED.holds(trial.params) for trial in searched)
    assert len({trial.params["method"] for trial in searched}) > 1
    assert all(
        ("density" in trial.params) == (trial.params["method"] != "linear") for trial in searched
    )
    assert params_of(run(2)) == params_of(study)


def test_killed_and_resumed_search_equals_the_uninterrupted_one(name, n_objectives, tmp_path):
    def run(n_trials, storage=None):
        sampler = sampler_for(name, n_objectives, **options_for(name, 18))
        study = new_study(sampler, n_objectives, storage)
        if not study.trials:
            add_baselines(study, n_objectives)
        run_one_by_one(study, n_trials)
        return study

    run(14, open_journal(tmp_path / "study"))
    resumed = run(18, open_journal(tmp_path / "study"))
    assert params_of(resumed) == params_of(run(18))


def test_another_seed_gives_another_search(name, n_objectives):
    first, second = (
        new_study(sampler_for(name, n_objectives, seed=s), n_objectives) for s in (1, 2)
    )
    run_one_by_one(first, 3)
    run_one_by_one(second, 3)
    assert params_of(first) != params_of(second)
