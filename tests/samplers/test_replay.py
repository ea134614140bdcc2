"""What a replay reads of a study, whatever number of generations it has had."""

from __future__ import annotations

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge.samplers.results import Trials
from tests.samplers.searches import (
    MIXED,
    floats,
    new_study,
    run_one_by_one,
    sampler_for,
)

MIXED_GENES = dict(MIXED.searched)


@pytest.mark.parametrize("name", ["pycma", "catcma"])
def test_a_replay_passes_over_the_trials_once_not_once_per_generation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(sampler_for(name, 2, popsize=4), 2)
    run_one_by_one(study, 60)
    fresh = new_study(sampler_for(name, 2, popsize=4), 2, study._storage)
    probe = fresh.ask()._cached_frozen_trial
    reads: list[int] = []
    read = FrozenTrial.system_attrs.fget  # type: ignore[attr-defined]
    write = FrozenTrial.system_attrs.fset  # type: ignore[attr-defined]
    counted = property(lambda trial: reads.append(trial.number) or read(trial), write)
    monkeypatch.setattr(FrozenTrial, "system_attrs", counted)
    fresh.sampler.sample_relative(fresh, probe, MIXED_GENES)
    assert len(reads) <= 4 * 60  # 15 generations


def test_of_failures_that_were_run_again_only_the_last_counts() -> None:
    space = floats(2)
    study = new_study(sampler_for("random", 1), 1)
    tries = [(0.1, None), (0.2, None), (0.1, None), (0.3, 1.0), (0.2, 2.0), (0.4, None)]
    for value, score in tries:
        params = {"g0": value, "g1": 0.5}
        state = TrialState.FAIL if score is None else TrialState.COMPLETE
        of = space.distributions
        study.add_trial(create_trial(state=state, value=score, params=params, distributions=of))
    counted = Trials(space, constrained=False).finished(study)
    assert [result.number for result in counted] == [2, 3, 4, 5]
