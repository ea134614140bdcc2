from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evomerge.samplers.mixed import CatEvolution, ComoEvolution, default_popsize
from evomerge.samplers.mixed_genes import MixedGenes
from evomerge.samplers.replay import Told
from evomerge.samplers.results import Result
from evomerge.samplers.unit_cube import UnitCube
from tests.samplers.searches import MIXED, new_study, run_one_by_one, run_out_of_order, sampler_for

GENES = MixedGenes(MIXED)
CUBE = UnitCube(MIXED.searched)


def told(point, losses, **kwargs):
    result = Result(0, {}, dict(MIXED.defaults), losses, 0.0, pruned=False, queued=False)
    return Told(point, result, kwargs.get("foreign", False))


@given(st.lists(st.floats(0, 1), min_size=CUBE.dimension, max_size=CUBE.dimension))
def test_params_survive_the_way_to_a_mixed_point_and_back(point):
    params = CUBE.decode(np.array(point))
    again = GENES.decode(GENES.encode(params))
    assert again.keys() == params.keys()
    for name, value in params.items():
        assert again[name] == value or np.isclose(again[name], value, rtol=1e-9)


def test_every_draw_is_in_the_space():
    search = CatEvolution(MIXED, sigma0=0.5, popsize=6, seed=1)
    for number in range(50):
        assert MIXED.holds(search.decode(search.draw(number)))


def test_catcma_finds_more_than_chance():
    def best(name, seed):
        study = new_study(sampler_for(name, 1, seed=seed), 1)
        run_one_by_one(study, 70)
        return study.best_value

    assert sum(best("catcma", s) for s in range(3)) < sum(best("random", s) for s in range(3))


def test_equal_scores_and_failures_leave_a_distribution_that_can_be_drawn_from():
    search = CatEvolution(MIXED, sigma0=1 / 6, popsize=5, seed=1)
    for losses in ((0.5,), None, (0.5,)):
        search.tell([told(search.draw(n), losses) for n in range(5)])
    assert search.generation == 3
    assert MIXED.holds(search.decode(search.draw(9)))


def test_comocma_never_starves_and_a_centre_that_never_ends_does_not_hold_it_up():
    como = ComoEvolution(MIXED, sigma0=1 / 6, kernels=3, seed=1)
    popsize = default_popsize(len(MIXED.searched))
    waiting = [told(como.draw(n, n), (0.1 * n, 1.0)) for n in range(popsize)]
    assert all(t.point.kernel is not None for t in waiting)
    assert not como.ending(waiting)  # two centres are out
    more = range(popsize + 2, 10 * popsize)
    waiting += [told(como.draw(n, n), (0.1, 1.0)) for n in more]
    assert como.ending(waiting)
    como.tell(como.ending(waiting))
    assert como.generation == 1
    assert MIXED.holds(como.decode(como.draw(999, 0)))


def test_comocma_moves_with_results_out_of_order():
    study = new_study(sampler_for("comocma", 2, kernels=2), 2)
    run_out_of_order(study, 60)
    generations = [t.system_attrs["comocma:generation"] for t in study.trials]
    assert generations == sorted(generations)
    assert generations[-1] >= 4
