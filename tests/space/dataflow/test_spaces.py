"""What every data-flow and hybrid space promises, whatever its encoding."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe
from evomerge.space.baselines import baselines
from evomerge.space.protocol import Params
from tests.space.dataflow.spaces import MODELS, ONE_TO_ONE, SPACES, params_of, space


def same(one: Recipe, other: Recipe) -> bool:
    """Tell recipes of one model: equal but for rounding errors of scales."""
    pairs = list(zip(one.path, other.path, strict=False))
    return (
        len(one.path) == len(other.path)
        and all((a.source, a.layer) == (b.source, b.layer) for a, b in pairs)
        and all(a.scale == pytest.approx(b.scale, abs=1e-9) for a, b in pairs)
        and [rule.method for rule in one.rules] == [rule.method for rule in other.rules]
        and [rule.parameters for rule in one.rules] == [rule.parameters for rule in other.rules]
    )


def close(one: Params, other: Params) -> bool:
    """Tell params that differ only by rounding errors."""
    return one.keys() == other.keys() and all(
        value == (pytest.approx(other[name], abs=1e-9) if isinstance(value, float) else other[name])
        for name, value in one.items()
    )


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_params_give_a_valid_path_between_the_owners_ends(
    name: str, data: st.DataObject
) -> None:
    found = space(SPACES[name])
    params = data.draw(params_of(found))
    recipe = found.recipe(params)
    assert recipe.faults() == []
    owner = "merged" if "hybrid" in name else params.get("owner", recipe.path[0].source)
    assert (recipe.path[0].source, recipe.path[0].layer) == (owner, 0)
    assert (recipe.path[-1].source, recipe.path[-1].layer) == (owner, MODELS.n_layers - 1)
    content = SPACES[name]
    assert 2 <= len(recipe.path) <= content.get("path", content).get("max_hops", 12)
    assert all(0 <= hop.layer < MODELS.n_layers for hop in recipe.path)


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_product_of_scales_keeps_its_limit(name: str, data: st.DataObject) -> None:
    found = space(SPACES[name])
    recipe = found.recipe(data.draw(params_of(found)))
    limit = ((SPACES[name].get("scale") or {}) if "scale" in SPACES[name] else {}).get("limit", 16)
    scales = [hop.scale for hop in recipe.path]
    for stop in range(len(scales)):
        assert 1 / limit < prod(scales[: stop + 1]) < limit


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_recipe_is_found_again_in_its_space(name: str, data: st.DataObject) -> None:
    found = space(SPACES[name])
    recipe = found.recipe(data.draw(params_of(found)))
    again = found.params(recipe)
    assert again is not None
    assert same(found.recipe(again), recipe)


@pytest.mark.parametrize("name", ONE_TO_ONE)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_params_to_recipe_and_back_is_the_identity(name: str, data: st.DataObject) -> None:
    found = space(ONE_TO_ONE[name])
    params = data.draw(params_of(found))
    again = found.params(found.recipe(params))
    assert again is not None
    assert close(again, params)


@pytest.mark.parametrize("name", ONE_TO_ONE)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_different_params_give_different_recipes(name: str, data: st.DataObject) -> None:
    found = space(ONE_TO_ONE[name])
    one, two = data.draw(params_of(found)), data.draw(params_of(found))
    assert (one == two) == (found.recipe(one).digest == found.recipe(two).digest)


@pytest.mark.parametrize("name", SPACES)
def test_the_search_starts_at_the_owner_as_it_is(name: str) -> None:
    found = space(SPACES[name])
    if "tight" in name:
        return  # the whole model does not fit
    path = found.recipe(found.defaults).path
    owner = path[0].source
    assert path == tuple(Hop(owner, layer) for layer in range(MODELS.n_layers))


@pytest.mark.parametrize("name", ["slots", "permutation", "slices"])
@given(data=st.data())
def test_statistics_are_those_of_all_recipes(name: str, data: st.DataObject) -> None:
    merge = {"method": "ties", "genes": {"density": {}}}
    hybrid = space({"kind": "hybrid", "merge": merge, "path": {"encoding": name}})
    assert hybrid.statistics == ("magnitudes",)
    for found in (hybrid, space(SPACES[name])):
        recipe = found.recipe(data.draw(params_of(found)))
        assert set(recipe.statistics) <= set(found.statistics)


def test_unchanged_models_need_no_statistics() -> None:
    owners = {"sources": ["base", "math"], "owner": ["base", "math"]}
    assert space(SPACES["slots"] | owners).statistics == ()


@pytest.mark.parametrize("name", SPACES)
def test_every_gene_is_described(name: str) -> None:
    found = space(SPACES[name])
    described = found.describe()
    assert [gene.name for gene in described] == list(found.distributions)
    assert all(gene.meaning and gene.range for gene in described)


@pytest.mark.parametrize("name", ["slots", "permutation", "threshold", "slices"])
def test_owners_are_baselines_in_the_space(name: str) -> None:
    found = space(SPACES[name] | {"owner": ["math", "list"]})
    origins = {b.origin: b.params for b in baselines(found, MODELS)}
    for expert in ("math", "list"):
        params = origins[f"expert:{expert}"]
        assert params is not None
        decoded = found.recipe(params)
        assert decoded.path == tuple(Hop(expert, layer) for layer in range(MODELS.n_layers))
        assert decoded.rules[0].parameters["coefficient"] == {
            "math": float(expert == "math"),
            "list": float(expert == "list"),
        }
    assert origins["uniform"] is None


def test_a_hybrid_space_holds_every_baseline_of_its_merge() -> None:
    found = space(SPACES["hybrid"])
    assert all(b.params is not None for b in baselines(found, MODELS))


def test_the_base_can_own_the_ends() -> None:
    found = space(SPACES["slots"] | {"sources": ["base", "math"]})
    recipe = found.recipe(found.defaults)
    assert recipe.rules[0].method == "task_arithmetic"
    assert recipe.rules[0].parameters["coefficient"] == {"math": 0.0, "list": 0.0}


@pytest.mark.parametrize("name", SPACES)
def test_depths_of_a_path_are_places_in_it(name: str) -> None:
    """Names number the places; those of the whole path, such as its owner, have no number."""
    found = space(SPACES[name])
    numbers = {n: [int(part) for part in n.split(".") if part.isdigit()] for n in found.defaults}
    assert found.depths == {n: numbers[n][0] for n in numbers if numbers[n]}
