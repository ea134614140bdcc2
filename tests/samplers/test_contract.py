"""What every sampler promises, built-in or not."""

from __future__ import annotations

import random

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from evomerge.samplers import SearchProblem, resolve_sampler, sampler_names
from tests.samplers.searches import (
    MIXED,
    SLOPED,
    add_baselines,
    new_study,
    open_journal,
    params_of,
    run_one_by_one,
    run_out_of_order,
    sampler_for,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)

_SEARCHES = [
    (name, n_objectives)
    for name in sorted(sampler_names().keys() - {"auto"})
    for n_objectives in (1, 2)
    if name != "comocma" or n_objectives == 2
]
pytestmark = [
    pytest.mark.parametrize(("name", "n_objectives"), _SEARCHES),
    pytest.mark.filterwarnings("error"),
]


def options_for(name, n_trials):
    """Choose options with which a sampler is past its random start before the search ends."""
    by_name = {
        "catcma": {"popsize": 5},
        "gp": {"n_startup_trials": n_trials - 3},  # its asks are what takes time here
        "m2n2": {"archive_size": 6},
        "map": {"n_startup_trials": 6},
        "nsga2": {"population_size": 5},
        "nsga3": {"population_size": 5},
        "pycma": {"popsize": 5},
        "tpe": {"n_startup_trials": 6},
    }
    return by_name.get(name, {})


def test_search_survives_bad_trials_foreign_trials_and_results_out_of_order(name, n_objectives):
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
    assert len(study.get_trials(states=[TrialState.PRUNED])) == 1
    assert all(MIXED.holds(trial.params) for trial in searched)
    assert len({trial.params["method"] for trial in searched}) > 1
    assert all(
        ("density" in trial.params) == (trial.params["method"] != "linear") for trial in searched
    )
    assert params_of(run(2)) == params_of(study)


@pytest.mark.parametrize("constrained", [False, True])
def test_killed_and_resumed_search_equals_the_uninterrupted_one(
    name, n_objectives, constrained, tmp_path
):
    n_trials = 22

    def run(n_asked, storage=None):
        options = options_for(name, n_trials)
        sampler = sampler_for(name, n_objectives, constrained=constrained, **options)
        study = new_study(sampler, n_objectives, storage)
        if not study.trials:
            add_baselines(study, n_objectives)
        run_one_by_one(study, n_asked, constrained=constrained, failed={7}, pruned={9})
        return study

    run(8, open_journal(tmp_path / "study"))
    run(18, open_journal(tmp_path / "study"))
    resumed = run(n_trials, open_journal(tmp_path / "study"))
    whole = run(n_trials)
    assert params_of(resumed) == params_of(whole)
    assert [t.state for t in whole.trials].count(TrialState.COMPLETE) == n_trials - 2


def test_another_seed_gives_another_search(name, n_objectives):
    first, second = (
        new_study(sampler_for(name, n_objectives, seed=s), n_objectives) for s in (1, 2)
    )
    run_one_by_one(first, 12)
    run_one_by_one(second, 12)
    assert params_of(first) != params_of(second)


def test_a_larger_budget_changes_nothing_once_the_options_are_resolved(name, n_objectives):
    slopes = {"sloped": SLOPED, "sloped_objectives": (True,) * n_objectives}
    problem = SearchProblem(MIXED, n_objectives, n_trials=40, seed=3, **slopes)
    _, options = resolve_sampler(name, options_for(name, 20), problem)
    studies = []
    for n_trials in (40, 4000):
        sampler = sampler_for(name, n_objectives, n_trials=n_trials, **options)
        studies.append(new_study(sampler, n_objectives))
        run_one_by_one(studies[-1], 19)
    assert params_of(studies[0]) == params_of(studies[1])
