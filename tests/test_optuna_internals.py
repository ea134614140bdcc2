"""Each fails where an upgrade of Optuna takes away a part that is not public."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import NSGAIIISampler, NSGAIISampler, RandomSampler
from optuna.storages import InMemoryStorage

import evomerge
from evomerge import optuna_internals

PRIVATE = re.compile(
    r"optuna[\w.]*\._|_CONSTRAINTS_KEY|(?<!self)\._(?:contains|fixed_params|study_id)\b"
    r"|(?<!self)\._(?:storage|trial_id|get_generation_key)\b"
)


def test_nothing_else_uses_what_is_not_public() -> None:
    package = Path(evomerge.__file__).parent
    users = {f.name for f in package.rglob("*.py") if PRIVATE.search(f.read_text("utf-8"))}
    assert users == {"optuna_internals.py"}


def test_a_study_and_its_trials_are_found_in_their_storage() -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(study_name="s", storage=storage)
    trial = study.ask()
    found = optuna_internals.storage_of(study)
    assert found.get_study_id_from_name("s") == optuna_internals.study_id(study)
    for one in (trial, study.trials[0]):
        assert found.get_trial(optuna_internals.trial_id(one)).number == trial.number


def test_fixed_params_are_suggested() -> None:
    trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    optuna_internals.fix_params(trial, {"x": 0.25})
    assert trial.suggest_float("x", 0, 1) == 0.25


def test_a_storage_lists_its_studies_as_optuna_reads_them() -> None:
    study = optuna.create_study(study_name="s", directions=["minimize", "maximize"])
    study.set_user_attr("key", "value")
    (stored,) = optuna_internals.storage_of(study).get_all_studies()
    made = optuna_internals.frozen_study(0, "s", study.directions, study.user_attrs, {})
    assert made == stored


def test_a_distribution_contains_its_values() -> None:
    number, choice = FloatDistribution(0.0, 1.0), CategoricalDistribution(("a", "b"))
    assert [optuna_internals.contains(number, v) for v in (0.0, 1.0, 1.5, "a")] == [
        *(True, True, False, False)
    ]
    assert [optuna_internals.contains(choice, v) for v in ("a", "c")] == [True, False]


def test_constraints_are_stored_under_their_key() -> None:
    study = optuna.create_study(sampler=NSGAIISampler(seed=0, constraints_func=lambda t: (1.5,)))
    study.tell(study.ask(), 0.0)
    assert list(study.trials[0].system_attrs[optuna_internals.CONSTRAINTS_KEY]) == [1.5]


@pytest.mark.parametrize("sampler", [NSGAIISampler, NSGAIIISampler])
def test_generations_are_stored_under_their_key(sampler: type) -> None:
    study = optuna.create_study(sampler=sampler(population_size=2, seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert study.trials[0].system_attrs[optuna_internals.generation_key(sampler)] == 0
