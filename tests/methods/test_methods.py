"""Oracles that each method must satisfy, whatever the kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.kernels.eager import merge_eager
from evomerge.methods.base import Parameter, ParameterValue, TensorContext
from evomerge.methods.modifiers import MODIFIERS
from evomerge.methods.registry import method, method_names
from evomerge.statistics.collect import WholeModel
from evomerge.statistics.name import StatisticName
from evomerge.statistics.tensor import TensorStatistics
from tests.methods.running import added


def merge(
    name: str,
    base: torch.Tensor,
    experts: list[torch.Tensor],
    names: tuple[str, ...] | None = None,
    **values: ParameterValue,
) -> torch.Tensor:
    names = names or tuple(f"e{i}" for i in range(len(experts)))
    bound = method(name).bind({k.rstrip("_"): v for k, v in values.items()}, names)
    sources = added(bound, base, experts)
    statistics = TensorStatistics(base if bound.prepared is None else None, sources)
    out = torch.full_like(base, float("nan"))
    merge_eager(bound.lower(TensorContext("t", names, statistics, seed=3)), base, sources, out)
    return out


def random_tensors(seed: int, k: int, n: int = 400) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(seed)
    base = torch.randn(n)
    return base, [base + 0.3 * torch.randn(n) for _ in range(k)]


@pytest.mark.parametrize("name", method_names())
def test_every_method_is_documented_and_binds_its_defaults(name: str) -> None:
    found = method(name)
    assert found.name == name
    assert all((found.summary, found.formula, found.source, found.__doc__))
    fewest, _ = found.n_experts
    found.bind({}, [f"e{i}" for i in range(fewest)])


# Their own rule finds the coefficients or acts while training; none of it is in a merge.
NOT_MERGES = [
    *("AdaMerging", "aTLAS", "Self-Positioning", "AMA", "MAP", "EMA", "SWALP", "LCSC", "MWA"),
    *("FedAU", "MOS", "ZSCL", "greedy", "Unconstrained", "Swapping", "Sparse"),
]


@pytest.mark.parametrize("name", method_names())
def test_no_method_claims_a_rule_that_is_not_its_own(name: str) -> None:
    words = " ".join(method(name).covers).replace("(", " ").replace(")", " ").split()
    assert not set(words) & set(NOT_MERGES)


def all_parameters() -> list[tuple[str, Parameter]]:
    kinds = [*(method(name) for name in method_names()), *MODIFIERS.values()]
    return [(kind.name, p) for kind in kinds for p in kind.parameters().values()]


@pytest.mark.parametrize(
    ("owner", "parameter"), all_parameters(), ids=lambda x: getattr(x, "name", x)
)
def test_parameters_are_helped_and_their_ranges_are_legal(owner: str, parameter: Parameter) -> None:
    assert parameter.help
    assert not parameter.help.endswith(".")
    assert parameter.fault(parameter.default) is None
    for edge in parameter.search or ():
        assert parameter.fault(edge) is None, owner


def test_parameters_of_one_name_are_of_one_kind() -> None:
    kinds: dict[str, tuple[type, bool]] = {}
    for owner, parameter in all_parameters():
        kind = (type(parameter.default), parameter.per_expert)
        assert kinds.setdefault(parameter.name, kind) == kind, f"{parameter.name} of {owner}"


class Watched:
    """Statistics that remember what they were asked for."""

    def __init__(self, statistics: TensorStatistics) -> None:
        self.asked: set[str] = set()
        self._statistics = statistics

    def __getattr__(self, name: str) -> Any:
        if name not in ("n_models", "n_experts", "shape"):
            self.asked.add(name)
        return getattr(self._statistics, name)


def variants(parameters: dict[str, Parameter]) -> list[dict[str, ParameterValue]]:
    """The defaults, and every choice and truth value by itself."""
    found: list[dict[str, ParameterValue]] = [{}, {"select_topk": 0.5}, {"epsilon": 0.1}]
    for name, parameter in parameters.items():
        found += [{name: choice} for choice in parameter.choices]
        found += [{name: True}] if parameter.default is False else []
    return [values for values in found if values.keys() <= parameters.keys()]


@pytest.mark.parametrize("name", method_names())
def test_lowering_asks_only_for_declared_statistics(name: str) -> None:
    kind = method(name)
    k = kind.n_experts[1] or max(kind.n_experts[0], 3)
    base, experts = random_tensors(0, min(k, 3))
    names = tuple(f"e{i}" for i in range(len(experts)))
    for values in variants(kind.parameters()):
        bound = kind.bind(values, names)
        watched = Watched(TensorStatistics(base, experts))
        bound.lower(TensorContext("t", names, watched, seed=3))  # type: ignore[arg-type]
        used = {StatisticName.parse(name).statistic for name in bound.statistics_used()}
        assert watched.asked <= used, values
        assert used <= set(kind.statistics)
        measured = set(kind.statistics) - {"prepared"}
        assert all(hasattr(TensorStatistics, statistic) for statistic in measured)


# What makes a method keep everything and add it as it is.
PLAIN: dict[str, dict[str, ParameterValue]] = {
    "task_arithmetic": {},
    "ties": {"density": 1.0},
    "dare_linear": {"density": 1.0},
    "dare_ties": {"density": 1.0},
    "della": {"density": 1.0},
    "della_linear": {"density": 1.0},
    "breadcrumbs": {"density": 1.0},
    "breadcrumbs_ties": {"density": 1.0},
    "consensus": {"mask_ratio": 0.0, "agreement": 1.0},
    "emr": {},
    "magmax": {},
    "sce": {},
    "varm": {},
}


@pytest.mark.parametrize("name", PLAIN)
@given(seed=st.integers(0, 100), which=st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_coefficient_one_on_one_expert_returns_that_expert(
    name: str, seed: int, which: int
) -> None:
    base, experts = random_tensors(seed, 3)
    one_hot = {f"e{i}": float(i == which) for i in range(3)}
    merged = merge(name, base, experts, coefficient=one_hot, **PLAIN[name])
    if name == "sce":  # the other experts vote
        agrees = merged != base
        torch.testing.assert_close(merged[agrees], experts[which][agrees])
    else:
        torch.testing.assert_close(merged, experts[which])


ALONE: dict[str, dict[str, ParameterValue]] = {
    **PLAIN,
    "linear": {},
    "wise_ft": {"alpha": 1.0},
    "nearswap": {"limit": 100.0},
    "arcee_fusion": {"fence": -100.0},
    "ram": {"tolerance": 0.0},
    "ramplus": {"tolerance": 0.0},
    "localize_and_stitch": {"density": 1.0},
    "tatr": {"trust": 1.0},
    "widen": {},
    "slerp": {"t": 1.0},
    "multislerp": {},
    "karcher": {},
    "variance_corrected": {},
}


@pytest.mark.parametrize("name", ALONE)
@given(seed=st.integers(0, 100))
@settings(max_examples=5, deadline=None)
def test_a_single_expert_of_which_all_is_kept_is_returned(name: str, seed: int) -> None:
    base, experts = random_tensors(seed, 1)
    torch.testing.assert_close(merge(name, base, experts, **ALONE[name]), experts[0])


ORDERED = ("slerp", "opcm")
SYMMETRIC = [n for n in method_names() if n not in ORDERED and method(n).n_experts[1] != 1]


@pytest.mark.parametrize("name", SYMMETRIC)
@given(seed=st.integers(0, 100))
@settings(max_examples=5, deadline=None)
def test_permuting_experts_with_their_coefficients_changes_nothing(name: str, seed: int) -> None:
    base, experts = random_tensors(seed, 2)
    coefficients = {"e0": 0.2, "e1": 0.7}
    values = {"coefficient": coefficients} if "coefficient" in method(name).parameters() else {}
    one = merge(name, base, experts, ("e0", "e1"), **values)
    other = merge(name, base, experts[::-1], ("e1", "e0"), **values)
    torch.testing.assert_close(one, other)


IDEMPOTENT: dict[str, dict[str, ParameterValue]] = {
    "linear": {},
    "ties": {"density": 1.0},
    "della": {"density": 1.0},
    "breadcrumbs_ties": {"density": 1.0, "normalize": True},
    "task_arithmetic": {"normalize": True},
    "emr": {},
    "magmax": {},
    "sce": {},
    "varm": {},
    "ram": {"tolerance": 0.0},
    "localize_and_stitch": {"density": 1.0},
    "slerp": {"t": 0.3},
    "nuslerp": {},
    "multislerp": {},
    "karcher": {},
    "model_stock": {},
    "variance_corrected": {},
}


@pytest.mark.parametrize("name", IDEMPOTENT)
@given(seed=st.integers(0, 100))
@settings(max_examples=5, deadline=None)
def test_equal_experts_merge_to_themselves(name: str, seed: int) -> None:
    base, (expert,) = random_tensors(seed, 1)
    k = method(name).n_experts[1] or 3
    torch.testing.assert_close(merge(name, base, [expert] * k, **IDEMPOTENT[name]), expert)


@pytest.mark.parametrize("name", [n for n in method_names() if method(n).needs_base])
def test_experts_that_did_not_change_give_the_base(name: str) -> None:
    base, _ = random_tensors(0, 0)
    merged = merge(name, base, [base] * max(method(name).n_experts[0], 1))
    torch.testing.assert_close(merged, base)


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_constant_tensors_merge_to_finite_numbers(name: str, fill: float) -> None:
    fewest, most = method(name).n_experts
    k = most or max(fewest, 3)
    same = torch.full((8,), fill)
    assert torch.isfinite(merge(name, same, [same] * min(k, 3))).all()
    assert torch.isfinite(merge(name, same, [-same, 2 * same, same][: min(k, 3)])).all()


@given(seed=st.integers(0, 50), c=st.lists(st.floats(0.05, 1), min_size=2, max_size=4))
@settings(max_examples=25, deadline=None)
def test_task_arithmetic_with_coefficients_that_sum_to_one_is_linear(
    seed: int, c: list[float]
) -> None:
    base, experts = random_tensors(seed, len(c))
    coefficients = {f"e{i}": x / sum(c) for i, x in enumerate(c)}
    torch.testing.assert_close(
        merge("task_arithmetic", base, experts, coefficient=coefficients),
        merge("linear", base, experts, coefficient=coefficients),
    )


def test_ties_with_equal_signs_and_full_density_is_the_mean() -> None:
    base = torch.zeros(4)
    experts = [torch.tensor([1.0, 2.0, -3.0, 0.5]), torch.tensor([3.0, 4.0, -1.0, 1.5])]
    merged = merge("ties", base, experts, coefficient=1.0, density=1.0)
    assert merged.tolist() == [2.0, 3.0, -2.0, 1.0]


def test_ties_drops_the_minority_sign() -> None:
    experts = [torch.tensor([1.0]), torch.tensor([-3.0])]
    assert merge("ties", torch.zeros(1), experts, coefficient=1.0, density=1.0).item() == -3.0


@given(density=st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_ties_trims_to_its_density(density: float) -> None:
    base, (expert,) = random_tensors(1, 1, n=5000)
    changed = merge("ties", base, [expert], density=density) != base
    assert abs(changed.float().mean().item() - density) < 0.01


def test_dare_with_density_one_is_task_arithmetic() -> None:
    base, experts = random_tensors(2, 3)
    coefficients = {"e0": 0.5, "e1": 0.2, "e2": 0.9}
    torch.testing.assert_close(
        merge("dare_linear", base, experts, coefficient=coefficients, density=1.0),
        merge("task_arithmetic", base, experts, coefficient=coefficients),
    )


def test_dare_keeps_the_expected_task_vector() -> None:
    base, (expert,) = random_tensors(3, 1, n=200_000)
    merged = merge("dare_linear", base, [expert], density=0.3)
    tau, kept = expert - base, merged - base
    assert abs((kept != 0).float().mean().item() - 0.3) < 0.01
    slope = (kept @ tau / (tau @ tau)).item()  # E[mask / density] = 1
    assert abs(slope - 1.0) < 0.02


def test_dare_drops_other_elements_for_each_expert() -> None:
    base, (expert,) = random_tensors(4, 1, n=20_000)
    merged = merge("dare_linear", base, [expert, expert], density=0.5)
    ratio = (merged - base) / (expert - base)
    shares = [((ratio - r).abs() < 1e-3).float().mean().item() for r in (0, 2, 4)]
    assert np.allclose(shares, [0.25, 0.5, 0.25], atol=0.02)


@given(seed=st.integers(0, 50), density=st.floats(0.05, 0.95))
@settings(max_examples=10, deadline=None)
def test_della_without_a_window_is_dare(seed: int, density: float) -> None:
    base, experts = random_tensors(seed, 2)
    for della, dare in (("della_linear", "dare_linear"), ("della", "dare_ties")):
        torch.testing.assert_close(
            merge(della, base, experts, density=density, epsilon=0.0, normalize=False),
            merge(dare, base, experts, density=density, normalize=False),
        )


def test_della_keeps_large_changes_more_often_and_the_expected_task_vector() -> None:
    base, (expert,) = random_tensors(3, 1, n=200_000)
    kept = merge("della_linear", base, [expert], density=0.4, epsilon=0.3) - base
    tau = expert - base
    large = tau.abs() > tau.abs().median()
    assert abs((kept != 0)[large].float().mean().item() - 0.55) < 0.01
    assert abs((kept != 0)[~large].float().mean().item() - 0.25) < 0.01
    assert abs((kept @ tau / (tau @ tau)).item() - 1.0) < 0.02


def test_della_cuts_a_window_that_leaves_the_unit_interval() -> None:
    base, experts = random_tensors(0, 2)
    torch.testing.assert_close(
        merge("della", base, experts, density=0.9, epsilon=0.5),
        merge("della", base, experts, density=0.9, epsilon=0.1),
    )


def test_breadcrumbs_without_outliers_is_a_trim_by_magnitude() -> None:
    base, (expert,) = random_tensors(0, 1)
    torch.testing.assert_close(
        merge("breadcrumbs", base, [expert], density=0.3, gamma=0.0),
        merge("ties", base, [expert], density=0.3),
    )


def test_breadcrumbs_drops_no_more_on_top_than_in_all() -> None:
    base, (expert,) = random_tensors(0, 1, n=4000)
    merged = merge("breadcrumbs", base, [expert], density=0.95, gamma=0.5)
    assert abs((merged == base).float().mean().item() - 0.05) < 0.005
    largest = (expert - base).abs().argmax()
    assert merged[largest] == base[largest]


def test_consensus_of_too_many_is_the_base_and_of_none_is_task_arithmetic() -> None:
    base, experts = random_tensors(0, 3)
    merged = merge("consensus", base, experts, agreement=4.0)
    torch.testing.assert_close(merged, base)
    merged = merge("consensus", base, experts, mask_ratio=0.0, agreement=3.0)
    torch.testing.assert_close(merged, merge("task_arithmetic", base, experts))


def test_model_stock_of_orthogonal_experts_is_the_base() -> None:
    base = torch.ones(4)
    experts = [base + torch.tensor([1.0, 1, 0, 0]), base + torch.tensor([0.0, 0, 1, -1])]
    torch.testing.assert_close(merge("model_stock", base, experts), base)


@given(seed=st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_karcher_mean_of_two_lies_where_slerp_puts_the_middle(seed: int) -> None:
    base, experts = random_tensors(seed, 2)
    one = merge("karcher", base, experts)
    other = merge("slerp", base, [x / x.norm() for x in experts], t=0.5)
    torch.testing.assert_close(one / one.norm(), other / other.norm())


def test_emr_takes_the_largest_change_of_the_elected_sign() -> None:
    experts = [torch.tensor([1.0, 1.0]), torch.tensor([2.0, -3.0]), torch.tensor([-2.5, 1.5])]
    assert merge("emr", torch.zeros(2), experts).tolist() == [2.0, -3.0]


def test_magmax_takes_the_later_of_equal_changes() -> None:
    experts = [torch.tensor([1.0, 4.0]), torch.tensor([-1.0, 3.0])]
    assert merge("magmax", torch.zeros(2), experts).tolist() == [-1.0, 4.0]


def test_ram_does_not_dilute_lone_changes() -> None:
    experts = [torch.tensor([2.0, 2.0]), torch.tensor([0.0, 4.0])]
    assert merge("ram", torch.zeros(2), experts).tolist() == [2.0, 3.0]


def test_global_scope_counts_over_the_model() -> None:
    base, experts = random_tensors(0, 2)
    names = ("e0", "e1")
    whole = TensorStatistics(base, [base + 10 * (x - base) for x in experts])
    statistics = TensorStatistics(base, experts, model=whole)
    bound = method("ties").bind({"scope": "global", "density": 0.1}, names)
    out = torch.empty_like(base)
    merge_eager(bound.lower(TensorContext("t", names, statistics, 0)), base, experts, out)
    torch.testing.assert_close(out, base)  # nothing here is large by the measure of the model


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ties", {"density": 0.3}),
        ("tatr", {"trust": 0.7}),
        ("pcb", {"score_ratio": 0.3, "clip": 0.05}),
    ],
)
def test_with_global_scope_tensors_merge_as_parts_of_one(
    name: str, values: dict[str, float]
) -> None:
    base, experts = random_tensors(3, 2)
    whole = merge(name, base, experts, **values)
    rows, names = len(base) // 3, ("e0", "e1")
    parts = [[x[:rows], x[rows:] * 1.0] for x in (base, *experts)]
    tensors: list[TensorStatistics] = []
    model = WholeModel(lambda: tensors)
    tensors += [TensorStatistics(b, [x, y], model=model) for b, x, y in zip(*parts, strict=True)]
    bound = method(name).bind({"scope": "global", **values}, names)
    found = []
    for statistics, (b, x, y) in zip(tensors, zip(*parts, strict=True), strict=True):
        out = torch.empty_like(b)
        merge_eager(bound.lower(TensorContext("t", names, statistics, 0)), b, [x, y], out)
        found.append(out)
    assert torch.equal(torch.cat(found), whole)
    local = merge(name, *[x[0] for x in parts[:1]], [x[0] for x in parts[1:]], **values)
    assert not torch.equal(found[0], local)


def test_sce_selects_by_the_variance_of_the_model() -> None:
    base, experts = random_tensors(3, 2)
    names, whole = ("e0", "e1"), TensorStatistics(base, experts)
    rows = len(base) // 3
    part = TensorStatistics(base[:rows], [x[:rows] for x in experts], model=whole)
    bound = method("sce").bind({"scope": "global", "select_topk": 0.3}, names)
    plan = bound.lower(TensorContext("t", names, part, 0))
    assert plan.gate == bound.lower(TensorContext("t", names, whole, 0)).gate
    assert (
        plan.gate
        != method("sce")
        .bind({"select_topk": 0.3}, names)
        .lower(TensorContext("t", names, part, 0))
        .gate
    )


def test_slerp_ends_are_the_models_and_the_middle_lies_on_the_arc() -> None:
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(merge("slerp", one, [two], t=0.0), one)
    torch.testing.assert_close(merge("slerp", one, [two], t=1.0), two)
    torch.testing.assert_close(merge("slerp", one, [two], t=0.5), torch.full((2,), math.sqrt(0.5)))


def test_slerp_of_nearly_colinear_models_is_linear() -> None:
    base, (expert,) = random_tensors(5, 1)
    near = base + 1e-3 * (expert - base)
    torch.testing.assert_close(merge("slerp", base, [near], t=0.25), torch.lerp(base, near, 0.25))


def test_slerp_of_two_experts_does_not_read_the_base() -> None:
    _, experts = random_tensors(6, 2)
    one = merge("slerp", torch.zeros(400), experts, t=0.3)
    other = merge("slerp", torch.ones(400), experts, t=0.3)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("ties", {"density": 1.4}, "density: expected a number in [0, 1], got 1.4"),
        ("ties", {"densty": 0.4}, "did you mean 'density'?"),
        ("ties", {"coefficient": {"e0": 1.0}}, "coefficient: no value for expert 'e1'"),
        ("ties", {"coefficient": {"e0": 1, "e1": 1, "x": 1}}, "'x' is not one of the experts"),
        ("ties", {"lambda": {"e0": 1.0, "e1": 2.0}}, "lambda: expected one value for all"),
        ("ties", {"normalize": 1.0}, "normalize: expected true or false"),
        ("ties", {"lambda": True}, "lambda: expected a number"),
        ("ties", {"scope": "layer"}, "scope: expected one of tensor, global, got 'layer'"),
        ("ties", {"vote": 1.0}, "vote: expected one of weighted, unweighted, count, got 1.0"),
    ],
)
def test_wrong_parameters_are_refused(
    name: str, values: dict[str, ParameterValue], expected: str
) -> None:
    with pytest.raises(RecipeError) as error:
        method(name).bind(values, ["e0", "e1"])
    assert expected in str(error.value)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        method("ties").bind({"density": 2.0, "lambda": "x", "gamma": 1.0}, ["e0"])
    assert len(str(error.value).splitlines()) == 3


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'dare_ties'"):
        method("dare-ties")


def test_slerp_refuses_three_experts() -> None:
    with pytest.raises(RecipeError, match="slerp merges 1 to 2 experts, got 3"):
        method("slerp").bind({}, ["a", "b", "c"])
