from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.kernels.reference import merge_reference
from evomerge.methods.modifiers import MODIFIERS, bind_modifiers, modifier_faults
from evomerge.methods.registry import method, method_names
from evomerge.methods.slopes import Lowering
from tests.methods.running import Modifiers, bound, context, exact_tensors, merge

SPARSIFIERS = ("magnitude", "outlier_band", "random_drop", "ranked")
# The method that a sparsifier makes of task arithmetic.
MAKES = {
    "outlier_band": "breadcrumbs",
    "random_drop": "dare_linear",
    "ranked": "della_linear",
}


@pytest.mark.parametrize("name", MODIFIERS)
def test_every_modifier_is_documented_and_binds_its_defaults(name: str) -> None:
    found = MODIFIERS[name]
    assert found.name == name
    assert all((found.summary, found.source, found.__doc__))
    found.bind({}, ["a", "b"])


@pytest.mark.parametrize(("modifier", "name"), MAKES.items())
def test_task_arithmetic_with_a_sparsifier_is_the_method_named_after_it(
    modifier: str, name: str
) -> None:
    base, experts = exact_tensors(0, 2)
    density = {"e0": 0.5, "e1": 0.25}
    modified = merge("task_arithmetic", base, experts, {modifier: {"density": density}})
    np.testing.assert_array_equal(modified, merge(name, base, experts, density=density))


def test_an_untrimmed_election_with_a_trim_is_ties() -> None:
    base, experts = exact_tensors(0, 3)
    modified = merge("ties", base, experts, {"magnitude": {"density": 0.25}}, density=1.0)
    np.testing.assert_array_equal(modified, merge("ties", base, experts, density=0.25))


def test_rescaling_takes_no_part_in_the_divisor() -> None:
    base, experts = exact_tensors(0, 3)
    values = {"coefficient": 0.5, "normalize": True}
    modified = merge("ties", base, experts, {"random_drop": {}}, density=1.0, **values)
    np.testing.assert_array_equal(modified, merge("dare_ties", base, experts, **values))


DELTA = [
    name
    for name in method_names()
    if method(name).needs_base and "density" not in method(name).parameters()
]


@pytest.mark.parametrize("modifier", SPARSIFIERS)
@pytest.mark.parametrize("name", DELTA)
def test_sparsifiers_that_keep_all_change_no_method(modifier: str, name: str) -> None:
    base, experts = exact_tensors(0, method(name).n_experts[1] or 3)
    experts = experts[:3]
    if name in ("nearswap", "arcee_fusion", "ram", "ramplus"):
        with pytest.raises(RecipeError, match="trims, drops or limits by itself"):
            merge(name, base, experts, {modifier: {"density": 1.0}})
    else:
        modified = merge(name, base, experts, {modifier: {"density": 1.0}})
        np.testing.assert_array_equal(modified, merge(name, base, experts))


def scaled(modifiers: Modifiers, layer: int | None, n_layers: int) -> float:
    """Tell by what the merged task vector is multiplied."""
    base, experts = exact_tensors(0, 2)
    where = context(base, experts, layer=layer, n_layers=n_layers)
    method = bound("ties", 2, density=1.0)
    before, after = (
        merge_reference(Lowering(method, changes).plan(where), base, experts) - base
        for changes in ((), bind_modifiers(modifiers, where.experts))
    )
    ratio = (after / before)[before.abs() > 1e-3]
    assert float(ratio.max() - ratio.min()) < 1e-5
    return float(ratio.mean())


@given(layer=st.none() | st.integers(0, 11), alpha=st.floats(0.1, 2), beta=st.floats(0, 2))
def test_lines_scales_linearly_with_depth(layer: int | None, alpha: float, beta: float) -> None:
    expected = alpha + beta * (layer or 0) / 11
    assert scaled({"lines": {"alpha": alpha, "beta": beta}}, layer, 12) == pytest.approx(expected)


def test_lines_without_slope_is_the_identity_and_one_layer_takes_alpha() -> None:
    assert scaled({"lines": {"alpha": 1.0, "beta": 0.0}}, 5, 12) == pytest.approx(1.0)
    assert scaled({"lines": {"alpha": 0.3, "beta": 9.0}}, 0, 1) == pytest.approx(0.3)


def test_lines_composes_with_a_sparsifier_in_either_order() -> None:
    base, experts = exact_tensors(0, 2)
    both: Modifiers = {"lines": {"alpha": 0.4}, "random_drop": {"density": 0.5}}
    reverse = dict(reversed(both.items()))
    one, other = (merge("task_arithmetic", base, experts, m) for m in (both, reverse))
    np.testing.assert_array_equal(one, other)
    dropped = merge("dare_linear", base, experts, density=0.5)
    np.testing.assert_allclose(one - base.numpy(), 0.4 * (dropped - base.numpy()))


@pytest.mark.parametrize("modifier", MODIFIERS)
@pytest.mark.parametrize("name", ["linear", "slerp", "karcher", "variance_corrected"])
def test_methods_that_average_models_take_no_modifiers(modifier: str, name: str) -> None:
    base, experts = exact_tensors(0, 2)
    with pytest.raises(RecipeError, match=f"'{modifier}': expected a method that adds task"):
        merge(name, base, experts, {modifier: {}})


def test_two_sparsifiers_exclude_each_other() -> None:
    base, experts = exact_tensors(0, 2)
    with pytest.raises(RecipeError, match="leave one of the two out"):
        merge("task_arithmetic", base, experts, {"magnitude": {}, "random_drop": {}})


def test_all_faults_are_reported_at_once() -> None:
    wrong: Modifiers = {"liness": {}, "magnitude": {"density": 2.0, "scope": "x"}}
    faults = modifier_faults(wrong, ["a"])
    assert [str(fault).split(";")[0] for fault in faults] == [
        "modifiers.liness: expected one of lines, magnitude, outlier_band, random_drop, ranked, "
        "got 'liness'",
        "modifiers.magnitude.density: expected a number in [0, 1], got 2",
        "modifiers.magnitude.scope: expected one of tensor, global, got 'x'",
    ]
    with pytest.raises(RecipeError) as error:
        bind_modifiers(wrong, ["a"])
    assert list(error.value.faults) == faults
