from __future__ import annotations

import pytest

from tests.samplers.searches import (
    add_baselines,
    new_study,
    run_one_by_one,
    run_out_of_order,
    sampler_for,
    suggest_mixed,
)


@pytest.mark.parametrize(
    ("name", "label"), [("nsga2", "NSGAIISampler"), ("nsga3", "NSGAIIISampler")]
)
def test_genetic_samplers_advance_generations_and_breed_from_baselines(name, label):
    study = new_study(sampler_for(name, 2, population_size=6), 2)
    add_baselines(study, 2)
    run_one_by_one(study, 30)
    generations = [t.system_attrs[f"{label}:generation"] for t in study.trials[3:]]
    assert generations == sorted(generations)
    assert generations.count(0) == 5  # the baseline in the space is the sixth
    assert generations[-1] == 4
    attrs = study._storage.get_study_system_attrs(study._study_id)
    assert len(attrs[f"{label}:parent:1"]) == 6


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_model_based_samplers_start_at_random_then_use_their_model(name):
    search, chance = (
        new_study(sampler_for(sampler, 1, **options), 1)
        for sampler, options in ((name, {"n_startup_trials": 8}), ("random", {}))
    )
    for study in (search, chance):
        run_one_by_one(study, 12)
    same = [a.params == b.params for a, b in zip(search.trials, chance.trials, strict=True)]
    assert same == [True] * 8 + [False] * 4


def test_tpe_finds_more_than_chance():
    def best(name, seed):
        study = new_study(sampler_for(name, 1, seed=seed), 1)
        run_out_of_order(study, 40)
        return study.best_value

    assert sum(best("tpe", s) for s in (1, 2, 3)) < sum(best("random", s) for s in (1, 2, 3))


@pytest.mark.parametrize(
    ("name", "n_trials"), [("tpe", 50), ("nsga2", 80), ("nsga3", 80), ("gp", 18)]
)
def test_constraints_that_forbid_the_best_scores_are_kept_to(name, n_trials):
    def feasible(constrained):
        options = {"population_size": 6} if name.startswith("nsga") else {"n_startup_trials": 8}
        sampler = sampler_for(name, 1, constrained=constrained, **options)
        study = new_study(sampler, 1)
        for _ in range(n_trials):
            trial = study.ask()
            math = suggest_mixed(trial)["math"]
            trial.set_user_attr("constraints", [0.6 - math])  # scores want 0.2
            study.tell(trial, (math - 0.2) ** 2)
        return sum(t.params["math"] >= 0.6 for t in study.trials[n_trials // 2 :])

    assert feasible(True) > 2 * feasible(False)
