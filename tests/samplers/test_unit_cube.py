from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from evomerge.samplers.unit_cube import UnitCube, draw_uniform
from tests.samplers.searches import MIXED

CUBE = UnitCube(MIXED.searched)


@given(st.lists(st.floats(0, 1), min_size=CUBE.dimension, max_size=CUBE.dimension))
def test_every_point_decodes_into_range_and_params_survive_the_way_back(point):
    params = CUBE.decode(np.array(point))
    assert MIXED.holds(params)
    again = CUBE.decode(CUBE.encode(params))
    for name, value in params.items():
        assert again[name] == value or np.isclose(again[name], value, rtol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_smooth_genes_decode_as_their_ranges_say_to_the_bit(point):
    ranges = {"a": (0.0, 1.2), "b": (-0.3, 0.1), "c": (0.1, 0.7)}
    smooth = {name: FloatDistribution(*ends) for name, ends in ranges.items()}
    expected = {
        name: min(max(low + share * (high - low), low), high)
        for share, (name, (low, high)) in zip(point, ranges.items(), strict=True)
    }
    beside_a_step = {**smooth, "d": IntDistribution(1, 3)}  # decoded one by one
    assert UnitCube(smooth).decode(np.array(point)) == expected
    assert UnitCube(beside_a_step).decode(np.array([*point, 0.5])) == {**expected, "d": 2}


def test_axes_are_spread_by_kind_of_gene():
    cube = UnitCube(
        {
            "log": FloatDistribution(0.01, 100, log=True),
            "int": IntDistribution(1, 5, step=2),
            "step": FloatDistribution(0, 1, step=0.5),
            "choice": CategoricalDistribution(["a", "b", "c"]),
        }
    )
    assert cube.dimension == 6
    decoded = cube.decode(np.array([0.5, 0.32, 0.99, 0.1, 0.3, 0.2]))
    assert np.isclose(decoded["log"], 1.0)
    assert (decoded["int"], decoded["step"], decoded["choice"]) == (1, 1.0, "b")
    assert cube.decode(np.array([0.5, 0.34, 0.5, 0, 0, 1]))["int"] == 3
    assert np.allclose(cube.min_spreads, [0, 0.2 / 3, 0.2 / 3, 0, 0, 0])


def test_uniform_draws_give_every_value_of_a_gene_the_same_chance():
    genes = {"n": IntDistribution(1, 4), "choice": CategoricalDistribution(["a", "b", "c", "d"])}
    draws = [draw_uniform(genes, seed) for seed in range(2000)]
    for name in genes:
        counts = np.unique([draw[name] for draw in draws], return_counts=True)[1]
        assert counts.shape == (4,)
        assert np.all(np.abs(counts - 500) < 100)
