"""Oracles that each method must satisfy, whatever the kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.kernels.eager import merge_eager
from evomerge.methods.base import ParameterValue, TensorContext
from evomerge.methods.registry import method, method_names
from evomerge.statistics.tensor import TensorStatistics

TASK_VECTOR_METHODS = ("task_arithmetic", "ties", "dare_linear", "dare_ties")


def merge(
    name: str, base: torch.Tensor, experts: list[torch.Tensor], **values: ParameterValue
) -> torch.Tensor:
    names = tuple(f"e{i}" for i in range(len(experts)))
    bound = method(name).bind({k.rstrip("_"): v for k, v in values.items()}, names)
    context = TensorContext("t", names, TensorStatistics(base, experts), seed=3)
    out = torch.full_like(base, float("nan"))
    merge_eager(bound.lower(context), base, experts, out)
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


@pytest.mark.parametrize("name", TASK_VECTOR_METHODS)
@given(seed=st.integers(0, 100), which=st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_coefficient_one_on_one_expert_returns_that_expert(
    name: str, seed: int, which: int
) -> None:
    base, experts = random_tensors(seed, 3)
    one_hot = {f"e{i}": float(i == which) for i in range(3)}
    dense = {} if name == "task_arithmetic" else {"density": 1.0}
    merged = merge(name, base, experts, coefficient=one_hot, **dense)
    torch.testing.assert_close(merged, experts[which])


@pytest.mark.parametrize("name", ["linear", *TASK_VECTOR_METHODS])
def test_permuting_experts_with_their_coefficients_changes_nothing(name: str) -> None:
    base, experts = random_tensors(0, 2)
    values = {"density": 1.0} if "density" in method(name).parameters() else {}
    one = merge(name, base, experts, coefficient={"e0": 0.2, "e1": 0.7}, **values)
    other = merge(name, base, experts[::-1], coefficient={"e0": 0.7, "e1": 0.2}, **values)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["linear", "ties"])
def test_equal_experts_merge_to_themselves(name: str) -> None:
    base, (expert,) = random_tensors(0, 1)
    values = {"density": 1.0} if name == "ties" else {}
    torch.testing.assert_close(merge(name, base, [expert] * 3, **values), expert)


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
