from __future__ import annotations

import copy

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from evomerge.samplers.learned import PARTIAL
from evomerge.samplers.results import Trials
from evomerge.samplers.view import SpaceView
from tests.samplers.searches import MIXED, add_baselines, new_study, run_one_by_one, score_mixed


def searched_study():
    study = new_study(RandomSampler(seed=0), 1)
    add_baselines(study, 1)
    run_one_by_one(study, 8)
    return study


def test_view_hides_foreign_trials_and_completes_the_others():
    study = searched_study()
    study.add_trial(
        create_trial(
            params={"math": 3.0}, distributions={"math": FloatDistribution(0, 9)}, value=0.0
        )
    )
    seen = SpaceView(study, MIXED).trials
    assert [trial.number for trial in seen] == [2, 3, 4, 5, 6, 7]
    for trial in seen:
        real = study.trials[trial.number].params
        assert trial.params == {**MIXED.defaults, **real}
        assert trial.distributions == MIXED.distributions
    assert any("density" not in trial.params for trial in study.trials[2:8])


def test_view_is_otherwise_the_study():
    study = searched_study()
    view = SpaceView(study, MIXED)
    assert view.directions == study.directions
    assert view._study_id == study._study_id
    assert copy.copy(view).study is study


def test_running_trial_appears_with_its_params_and_then_with_its_result():
    study = searched_study()
    view = SpaceView(study, MIXED)
    trial = study.ask()
    assert view.get_trials(states=[TrialState.RUNNING]) == []
    trial.suggest_float("math", 0, 1)
    assert [t.number for t in view.get_trials(states=[TrialState.RUNNING])] == [8]
    trial.suggest_categorical("method", ["linear", "ties", "dare"])
    study.tell(trial, 1.0)
    (seen,) = [t for t in view.trials if t.number == 8]
    assert (seen.value, seen.params["method"]) == (1.0, study.trials[8].params["method"])


def test_unlabelled_trials_inherit_the_label_before_them():
    study = optuna.create_study()
    for label in (None, 0, 2, None):
        attrs = {} if label is None else {"generation": label}
        study.add_trial(
            create_trial(
                params={"math": 0.5},
                distributions={"math": MIXED.distributions["math"]},
                value=score_mixed({**MIXED.defaults}, 1)[0],
                system_attrs=attrs,
            )
        )
    view = SpaceView(study, MIXED, "generation")
    for _ in range(2):  # the second time from its cache
        assert [t.system_attrs["generation"] for t in view.trials] == [0, 0, 2, 2]
    assert "generation" not in study.trials[0].system_attrs


def test_a_trial_dropped_from_a_race_is_shown_with_the_values_predicted_for_it():
    study = searched_study()
    for partial in ([0.25], [float("nan")]):
        known = study.trials[5]
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED,
                params=known.params,
                distributions=known.distributions,
                user_attrs={PARTIAL: {"values": partial, "stderr": [0.1], "n_items": [30]}},
            )
        )
    raced, unknown = SpaceView(study, MIXED).trials[-2:]
    assert (raced.state, raced.values) == (TrialState.COMPLETE, [0.25])
    assert (unknown.state, unknown.values) == (TrialState.PRUNED, None)
    assert study.trials[-2].state is TrialState.PRUNED


@pytest.mark.parametrize(("excess", "state"), [(None, "PRUNED"), ([0.5], "COMPLETE")])
def test_a_dropped_trial_is_learned_from_only_where_its_constraints_are_known(excess, state):
    study = searched_study()
    known = study.trials[5]
    attrs = {PARTIAL: {"values": [0.25], "stderr": [0.1], "n_items": [30]}}
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            params=known.params,
            distributions=known.distributions,
            user_attrs=attrs if excess is None else {**attrs, "constraints": excess},
        )
    )
    view = SpaceView(study, MIXED, constrained=True)
    assert view.trials[-1].state is TrialState[state]
    result = Trials(MIXED, constrained=True).finished(study)[-1]
    assert (result.pruned, result.losses) == (True, None if excess is None else (0.25,))
