from __future__ import annotations

import numpy as np
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from evomerge.samplers import GeneSpace, SearchProblem, build_sampler, resolve_sampler
from evomerge.samplers.evolution import Evolution
from evomerge.samplers.replay import Told
from evomerge.samplers.results import Result
from tests.samplers.searches import (
    MIXED,
    floats,
    new_study,
    open_journal,
    params_of,
    run_one_by_one,
    run_out_of_order,
    sampler_for,
    suggest_all,
    suggest_mixed,
)

MIXED_GENES = dict(MIXED.searched)


def minimise(name, space, loss, *, seed, n_trials, **options):
    sampler = build_sampler(
        name, options, SearchProblem(space=space, n_objectives=1, n_trials=n_trials, seed=seed)
    )
    study = new_study(sampler, 1)
    study.optimize(lambda trial: loss(suggest_all(space)(trial)), n_trials=n_trials)
    return study


def sphere(params):
    return sum((value - 0.8) ** 2 for value in params.values())


def test_search_beats_chance_by_far_on_a_sphere_of_ten_genes():
    def mean_best(name):
        runs = (minimise(name, floats(10), sphere, seed=s, n_trials=200) for s in range(1, 6))
        return sum(run.best_value for run in runs) / 5

    # 5.9 times better over 20 seeds, as is `cma` used directly; single seeds from 2.5 up.
    assert mean_best("pycma") < mean_best("random") / 3


def test_stepped_genes_keep_moving():
    space = GeneSpace(
        {f"n{i}": IntDistribution(0, 8) for i in range(4)}, {f"n{i}": 4 for i in range(4)}
    )
    study = minimise(
        "pycma", space, lambda p: sum(abs(v - 7) for v in p.values()), seed=1, n_trials=200
    )
    assert study.best_value == 0
    assert len({tuple(t.params.values()) for t in study.trials[150:]}) > 1


def test_next_ask_is_the_same_from_a_replayed_store():
    study = new_study(sampler_for("pycma", 2, popsize=6), 2)
    run_out_of_order(study, 40)
    for pending in [t for t in study.trials if t.state is TrialState.RUNNING]:
        copy = new_study(sampler_for("pycma", 2, popsize=6), 2, study._storage)
        trial = copy.ask()
        replayed = copy.sampler.sample_relative(copy, trial._cached_frozen_trial, MIXED_GENES)
        continued = study.sampler.sample_relative(study, trial._cached_frozen_trial, MIXED_GENES)
        assert continued == replayed
        study.tell(pending.number, [0.0, 0.0])  # a late result


def test_two_processes_share_a_store():
    first = new_study(sampler_for("pycma", 1, popsize=5), 1)
    second = new_study(sampler_for("pycma", 1, popsize=5), 1, first._storage)
    for turn in range(40):
        study = (first, second)[turn % 3 == 0]
        trial = study.ask()
        study.tell(trial, float(suggest_mixed(trial)["math"]))
    fresh = new_study(sampler_for("pycma", 1, popsize=5), 1, first._storage)
    probe = fresh.ask()._cached_frozen_trial
    asks = [s.sampler.sample_relative(s, probe, MIXED_GENES) for s in (fresh, first, second)]
    assert asks[0] == asks[1] == asks[2]


def test_asked_again_a_trial_gets_the_same_params():
    study = new_study(sampler_for("pycma", 1, popsize=5), 1)
    interrupted = study.ask()
    params = suggest_mixed(interrupted)
    for _ in range(12):
        trial = study.ask()
        study.tell(trial, float(suggest_mixed(trial)["math"]))
    fresh = sampler_for("pycma", 1, popsize=5)
    again = fresh.sample_relative(study, study.trials[interrupted.number], MIXED_GENES)
    assert {name: again[name] for name in params if name in again}.items() <= params.items()


def test_failed_trial_that_was_run_again_is_told_once():
    study = new_study(sampler_for("pycma", 1, popsize=4), 1)
    for turn in range(6):
        trial = study.ask()
        params = suggest_mixed(trial)
        if turn == 1:
            study.tell(trial, state=TrialState.FAIL)
            study.enqueue_trial(params)
        else:
            study.tell(trial, float(params["math"]))
    study.ask().suggest_float("math", 0, 1)
    attrs = study._storage.get_study_system_attrs(study._study_id)
    assert attrs["pycma:batch:0"] == [0, 2, 3, 4]


def test_a_generation_of_failures_is_skipped():
    study = new_study(sampler_for("pycma", 1, popsize=4), 1)
    for turn in range(20):
        trial = study.ask()
        params = suggest_mixed(trial)
        state = TrialState.FAIL if turn < 8 else TrialState.COMPLETE
        study.tell(trial, None if turn < 8 else float(params["math"]), state=state)
    assert study.trials[-1].system_attrs["pycma:generation"] == 4


def evolution(**options):
    defaults = {"sigma0": 0.2, "popsize": 6, "diagonal": False, "restarts": 0, "seed": 5}
    return Evolution(floats(3), **{**defaults, **options})


def told(point, loss, *, foreign=False, violation=0.0, pruned=False):
    losses = None if loss is None else (loss,)
    result = Result(0, {}, {}, losses, violation, pruned, queued=False)
    return Told(point, result, foreign)


def test_infeasible_pruned_and_failed_points_rank_last_in_this_order():
    points = [evolution().draw(n) for n in range(6)]
    after = []
    for rest in (
        [told(points[3], -9.0, violation=2.0), told(points[4], None, pruned=True)],
        [told(points[3], 1e8), told(points[4], 1e9)],
    ):
        es = evolution()
        last = told(points[5], None) if len(after) == 0 else told(points[5], 1e10)
        es.tell([told(p, x) for p, x in zip(points, [0.1, 0.5, 0.2], strict=False)] + rest + [last])
        after.append(es.draw(6))
    assert np.array_equal(*after)


def test_all_failed_leaves_the_distribution_alone():
    es, untouched = evolution(), evolution()
    es.tell([told(es.draw(n), None) for n in range(6)])
    assert es.generation == 1
    assert np.array_equal(es.draw(7), untouched.draw(7))


def test_points_do_not_depend_on_each_other():
    es = evolution()
    backwards = [es.draw(n) for n in (3, 2, 1, 0)]
    assert np.array_equal(backwards[::-1], [evolution().draw(n) for n in range(4)])


def test_foreign_points_pull_no_further_than_drawn_ones():
    es = evolution()
    corner = np.ones(3)
    es.tell([told(corner, 0.0, foreign=True)] + [told(es.draw(n), 1.0) for n in range(5)])
    assert np.all((es.draw(9) > 0) & (es.draw(9) < 1))
    assert np.linalg.norm(es._es.mean - 0.5) < np.linalg.norm(corner - 0.5)


def test_a_search_without_progress_starts_again_elsewhere_with_twice_the_population():
    es, once = evolution(restarts=1), evolution(restarts=0)
    for _ in range(12):
        for each in (es, once):
            each.tell([told(each.draw(n), 1.0) for n in range(each.popsize)])
    assert (es.popsize, once.popsize) == (12, 6)
    assert not np.allclose(es.draw(99), once.draw(99))


def test_restarts_are_replayed_from_the_store(tmp_path):
    def run(n_trials, storage=None):
        study = new_study(sampler_for("pycma", 1, popsize=4), 1, storage)
        while len(study.trials) < n_trials:
            trial = study.ask()
            suggest_mixed(trial)
            study.tell(trial, 1.0)
        return study

    run(33, open_journal(tmp_path / "study"))
    resumed = run(45, open_journal(tmp_path / "study"))
    assert params_of(resumed) == params_of(run(45))
    attrs = resumed._storage.get_study_system_attrs(resumed._study_id)
    sizes = [len(batch) for name, batch in attrs.items() if "batch" in name]
    assert 8 in sizes


def test_noise_doubles_the_population_and_few_trials_per_axis_do_without_correlations():
    problem = SearchProblem(floats(30), 1, n_trials=300, seed=0)
    assert resolve_sampler("pycma", {}, problem) == ("pycma", {"diagonal": True})
    assert resolve_sampler("pycma", {"diagonal": False}, problem)[1] == {"diagonal": False}
    assert not resolve_sampler("pycma", {}, SearchProblem(floats(3), 1, 300, 0))[1]["diagonal"]
    sizes = []
    for noise in (False, True):
        study = new_study(sampler_for("pycma", 1, popsize=4, noise=noise), 1)
        run_one_by_one(study, 12)
        attrs = study._storage.get_study_system_attrs(study._study_id)
        sizes.append(len(attrs["pycma:batch:0"]))
    assert sizes == [4, 8]
