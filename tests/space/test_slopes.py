"""Slopes along genes, of spaces of every kind, against finite differences of the decoding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from evomerge.methods.declared import PerExpert
from evomerge.methods.modifiers import MODIFIERS
from evomerge.methods.registry import method
from evomerge.recipe.recipe import Recipe
from evomerge.recipe.slopes import RecipeSlopes
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet, Params, SearchSpace
from evomerge.space.sloped import Sloped, clipped, exp, expm1, log, log1p, number
from evomerge.space.slopes import gene_slopes
from tests.space.dataflow import spaces as paths
from tests.space.test_parameter import MIXED, SPACES, THREE, space

STEP = 1e-5
THREE_SHARES = {"method": "linear", "genes": {"coefficient": {"sum_to_one": True}}}
CASES: dict[str, tuple[SearchSpace, ModelSet]] = {
    **{name: (space(content, MIXED[name]), MIXED[name]) for name, content in SPACES.items()},
    "shares of three": (space(THREE_SHARES, THREE), THREE),
    **{
        name: (build_space(content, paths.MODELS), paths.MODELS)
        for name, content in paths.SPACES.items()
    },
}


def inner_params(found: SearchSpace, seed: int) -> Params:
    """Draw params of which no number is at a corner."""
    random = np.random.default_rng(seed)
    params = dict(found.defaults)
    for name, distribution in found.distributions.items():
        if isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            params[name] = float(low + random.uniform(0.1, 0.9) * (high - low))
        elif hasattr(distribution, "choices"):
            params[name] = distribution.choices[random.integers(len(distribution.choices))]
    return params


def numbers(recipe: Recipe, models: ModelSet) -> Iterator[tuple[str, str, PerExpert]]:
    """By tensor and parameter that has slopes, the numbers of a recipe."""
    for name, role in models.roles.items():
        position = recipe.rule_for(name, role)
        rule = recipe.rules[position]
        bound = recipe.bound_methods[position]
        own = [("", kind, rule.parameters) for kind in [method(rule.method)]]
        own += [(f"{m}:", MODIFIERS[m], values) for m, values in rule.modifiers.items()]
        for prefix, kind, values in own:
            for parameter in kind.parameters().values():
                if parameter.slope:
                    value = bound.value(parameter.name) if not prefix else values[parameter.name]
                    each = value if isinstance(value, tuple) else (float(value),)
                    yield name, prefix + parameter.name, each


def random_slopes(recipe: Recipe, models: ModelSet, seed: int) -> RecipeSlopes:
    random = np.random.default_rng(seed)
    tensors: dict[str, dict[str, PerExpert]] = {}
    for name, parameter, each in numbers(recipe, models):
        tensors.setdefault(name, {})[parameter] = tuple(random.normal(size=len(each)))
    return RecipeSlopes(tensors, tuple(random.normal(size=len(recipe.path))))


def objective(recipe: Recipe, models: ModelSet, slopes: RecipeSlopes) -> float:
    """The linear function with these slopes."""
    total = sum(s * hop.scale for s, hop in zip(slopes.scales, recipe.path, strict=True))
    for name, parameter, each in numbers(recipe, models):
        total += float(np.dot(slopes.tensors[name][parameter], each))
    return float(total)


@pytest.mark.parametrize("case", CASES)
def test_slopes_along_genes_are_what_finite_differences_find(case: str) -> None:
    found, models = CASES[case]
    for seed in range(3):
        params = inner_params(found, seed)
        recipe = found.recipe(params)
        slopes = random_slopes(recipe, models, seed)
        ours = gene_slopes(found, params, slopes, models.roles)
        for gene, distribution in found.distributions.items():
            if isinstance(distribution, FloatDistribution):
                low, high = (
                    objective(found.recipe({**params, gene: params[gene] + by}), models, slopes)  # type: ignore[operator]
                    for by in (-STEP, STEP)
                )
                expected = (high - low) / (2 * STEP)
                assert ours.get(gene, 0.0) == pytest.approx(expected, rel=1e-5, abs=1e-6), gene


def test_equal_neighbours_keep_genes_of_their_own() -> None:
    """Cells with equal values share a rule in the recipe, but not their slopes."""
    content = {
        "method": "task_arithmetic",
        "depth": {"control_points": 3},
        "genes": {"coefficient": {"per": ["depth"]}},
    }
    models = MIXED["global"]
    found = space(content, models)
    assert len(found.recipe(found.defaults).rules) == 1
    slopes = RecipeSlopes({name: {"coefficient": (1.0, 1.0)} for name in models.roles})
    ours = gene_slopes(found, found.defaults, slopes, models.roles)
    assert list(ours) == list(found.distributions)
    assert sum(ours.values()) == pytest.approx(2 * len(models.roles))
    assert min(ours.values()) > 2


def test_what_moves_masks_has_no_slope() -> None:
    found, models = CASES["layerwise"]
    slopes = random_slopes(found.recipe(found.defaults), models, 0)
    ours = gene_slopes(found, found.defaults, slopes, models.roles)
    assert set(ours) == {g for g in found.distributions if not g.startswith("density")}


def formula(x: float, y: float) -> float:
    return (
        (2 - x) * y / (1 + x * x) - 3 / y + exp(-x / 2) * log(y)
        + expm1(x) * abs(x - 5) + log1p(y) - clipped(x, -9.0, 9.0) + number(y) * 2 - -x
    )  # fmt: skip


@given(x=st.floats(-3, 3), y=st.floats(0.5, 4))
def test_numbers_with_slopes_calculate_and_differentiate(x: float, y: float) -> None:
    ours = formula(Sloped(x, {"x": 1.0}), Sloped(y, {"y": 1.0}))
    assert isinstance(ours, Sloped)
    assert float(ours) == formula(x, y)
    h = 1e-6
    along_x = (formula(x + h, y) - formula(x - h, y)) / (2 * h)
    along_y = (formula(x, y + h) - formula(x, y - h)) / (2 * h)
    assert ours.slopes["x"] == pytest.approx(along_x, rel=1e-5, abs=1e-5)
    assert ours.slopes["y"] == pytest.approx(along_y, rel=1e-5, abs=1e-5)


def test_numbers_equal_only_those_of_the_same_genes() -> None:
    one, same, other = (Sloped(0.5, {gene: 1.0}) for gene in ("a", "a", "b"))
    assert one == same
    assert one != other
    assert one != 0.5
    assert hash(one) == hash(same)
