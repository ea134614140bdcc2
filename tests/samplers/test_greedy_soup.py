from __future__ import annotations

from optuna.trial import TrialState

from evomerge.samplers import SearchProblem, build_sampler
from tests.samplers.searches import floats, new_study, suggest_all

SPACE = floats(3)


def run(loss, seeds, n_trials, **options):
    sampler = build_sampler(
        "greedy_soup",
        options,
        SearchProblem(space=SPACE, n_objectives=1, n_trials=n_trials, seed=1),
    )
    study = new_study(sampler, 1)
    for seed in seeds:
        study.enqueue_trial({f"g{i}": value for i, value in enumerate(seed)})
    study.optimize(lambda trial: loss(suggest_all(SPACE)(trial)), n_trials=n_trials)
    return [tuple(trial.params.values()) for trial in study.trials]


def test_seeds_join_the_soup_while_they_help():
    def loss(params):  # wants the average of the first two seeds, and has no use for the third
        return (params["g0"] - 0.5) ** 2 + (params["g1"] - 0.45) ** 2 + params["g2"] ** 2

    tried = run(loss, [(1, 0, 0), (0, 1, 0), (0, 0, 1)], 6)
    assert tried[3] == (0.5, 0.5, 0.0)
    assert tuple(round(v, 3) for v in tried[4]) == (0.333, 0.333, 0.333)
    moved = [a != b for a, b in zip(tried[5], (0.5, 0.5, 0.0), strict=True)]
    assert sum(moved) == 1


def test_moves_get_smaller_around_the_best_and_never_repeat():
    tried = run(lambda p: sum((v - 0.6) ** 2 for v in p.values()), [(0.5, 0.5, 0.5)], 60)
    assert len(set(tried)) == 60
    assert any(max(abs(v - 0.6) for v in point) < 0.03 for point in tried)


def test_failed_and_pruned_moves_are_not_tried_again():
    sampler = build_sampler(
        "greedy_soup", {}, SearchProblem(space=SPACE, n_objectives=1, n_trials=9, seed=1)
    )
    study = new_study(sampler, 1)
    for state in [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED] * 3:
        trial = study.ask()
        suggest_all(SPACE)(trial)
        study.tell(trial, 1.0 if state is TrialState.COMPLETE else None, state=state)
    assert len({tuple(t.params.values()) for t in study.trials}) == 9
