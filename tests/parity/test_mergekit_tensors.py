"""Single tensors merged by mergekit 0.1.5 and here.

Runs where ``mergekit`` can be imported. Where the two differ on purpose a test says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tests.methods.running import FloatArray, exact_tensors, is_kept, merge

mergekit = pytest.importorskip("mergekit.merge_methods.api")

C = (0.7, 0.4, 1.1)
D = (0.5, 0.25, 0.75)
EDGE = 6  # ranks of changes, which are read off knots


def theirs(
    name: str,
    base: torch.Tensor | None,
    experts: list[torch.Tensor],
    **parameters: Any,
) -> FloatArray:
    """Merge with mergekit; values per expert are tuples."""
    tensors = experts if base is None else [base, *experts]
    ids = [f"m{i}" for i in range(len(tensors))]
    of_experts = ids if base is None else ids[1:]
    merged = mergekit.merge_tensors(
        tensors,
        name,
        ids=ids,
        base_index=None if base is None else 0,
        parameters={
            key: dict(zip(of_experts, value, strict=True)) if isinstance(value, tuple) else value
            for key, value in parameters.items()
        },
        dtype=torch.float32,
    )
    return merged.double().numpy()


def assert_same(ours: FloatArray, other: FloatArray, *, strangers: int = 0) -> None:
    far = ~np.isclose(ours, other, rtol=1e-6, atol=1e-6)
    assert far.sum() <= strangers, (
        f"{far.sum()} of {far.size} differ, at most by {np.abs(ours - other).max():g}"
    )


W = {"weight": C}
CASES: list[tuple[str, str, int, Mapping[str, Any], Mapping[str, Any], int]] = [
    # ours, theirs, number of experts, our parameters, theirs, elements that may differ
    ("task_arithmetic", "task_arithmetic", 3, {"coefficient": C, "lambda_": 0.8},
     {**W, "lambda": 0.8}, 0),
    ("task_arithmetic", "task_arithmetic", 3, {"coefficient": C, "normalize": True},
     {**W, "normalize": True}, 0),
    ("ties", "ties", 3, {"coefficient": C, "density": D}, {**W, "density": D}, 0),
    ("ties", "ties", 3, {"coefficient": C, "density": D, "normalize": False, "lambda_": 0.8},
     {**W, "density": D, "normalize": False, "lambda": 0.8}, 0),
    ("breadcrumbs", "breadcrumbs", 3, {"coefficient": C, "density": D, "gamma": 0.1},
     {**W, "density": D, "gamma": (0.1,) * 3}, 0),
    ("breadcrumbs_ties", "breadcrumbs_ties", 3, {"coefficient": C, "density": D, "gamma": 0.1},
     {**W, "density": D, "gamma": (0.1,) * 3}, 0),
    ("sce", "sce", 3, {}, {}, 0),
    ("ram", "ram", 3, {"tolerance": 0.2}, {"epsilon": 0.2}, 0),
    ("ramplus", "ramplus_tl", 3, {"tolerance": 0.5, "boost": 0.5, "boost_cap": 2.0},
     {"epsilon": 0.5, "r": 0.5, "alpha": 2.0}, 0),
    ("model_stock", "model_stock", 3, {}, {}, 0),
    ("model_stock", "model_stock", 3, {"filter_wise": True}, {"filter_wise": True}, 0),
    ("multislerp", "multislerp", 3, {"coefficient": C}, W, 0),
    ("nuslerp", "nuslerp", 2, {"coefficient": (0.6, 0.2)}, {"weight": (0.6, 0.2)}, 0),
    ("nuslerp", "nuslerp", 2, {"coefficient": (0.6, 0.2), "row_wise": True},
     {"weight": (0.6, 0.2), "nuslerp_flatten": False, "nuslerp_row_wise": False}, 0),
    ("slerp", "slerp", 1, {"t": 0.3}, {"t": 0.3}, 0),
    ("nearswap", "nearswap", 1, {"limit": 0.2}, {"t": 0.2}, 0),
    ("arcee_fusion", "arcee_fusion", 1, {}, {}, 0),
    ("ties", "ties", 3, {"coefficient": C, "density": D, "rescale": "l1"},
     {**W, "density": D, "rescale": True}, 0),
    ("breadcrumbs", "breadcrumbs", 3,
     {"coefficient": C, "density": D, "gamma": 0.001, "rescale": "l1"},
     {**W, "density": D, "gamma": (0.001,) * 3, "rescale": True}, 0),
    ("nuslerp", "nuslerp", 2, {"coefficient": (0.6, 0.2), "column_wise": True},
     {"weight": (0.6, 0.2), "nuslerp_flatten": False, "nuslerp_row_wise": True}, 0),
    ("multislerp", "multislerp", 3, {"coefficient": C, "normalize": False, "eps": 0.5},
     {**W, "normalize_weights": False, "eps": 0.5}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "other", "k", "values", "parameters", "strangers"), CASES)
def test_merges_to_the_same_tensor(
    ours: str,
    other: str,
    k: int,
    values: Mapping[str, Any],
    parameters: Mapping[str, Any],
    strangers: int,
) -> None:
    base, experts = exact_tensors(0, k)
    expected = theirs(other, base, experts, **parameters)
    assert_same(merge(ours, base, experts, **values), expected, strangers=strangers)


@pytest.mark.parametrize("name", ["linear", "multislerp", "karcher"])
def test_merges_models_without_a_base_to_the_same_tensor(name: str) -> None:
    _, experts = exact_tensors(0, 3)
    # Karcher: mergekit weighs all experts alike.
    equal = name == "karcher"
    expected = theirs(name, None, experts, **({"tol": 1e-9, "max_iter": 100} if equal else W))
    ours = merge(name, None, experts, coefficient=(1.0,) * 3 if equal else C)
    assert_same(ours, expected)


@pytest.fixture
def our_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mergekit draw the masks that we draw, expert after expert."""
    drawn = iter(range(100))

    def bernoulli(probabilities: torch.Tensor, **_: object) -> torch.Tensor:
        kept = is_kept(next(drawn), probabilities.double().numpy())
        return torch.from_numpy(kept).to(probabilities.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)


@pytest.mark.usefixtures("our_masks")
@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", [True, False])
def test_random_drop_with_the_same_masks(name: str, rescale: bool) -> None:
    """Differs on purpose: our default divides by the density; ``l1`` is mergekit's way."""
    base, experts = exact_tensors(0, 3)
    expected = theirs(name, base, experts, **W, density=D, rescale=rescale)
    ours = merge(name, base, experts, coefficient=C, density=D, rescale="l1" if rescale else "none")
    assert_same(ours, expected)


@pytest.mark.usefixtures("our_masks")
@pytest.mark.parametrize("name", ["della", "della_linear"])
def test_ranked_drop_with_the_same_masks(name: str) -> None:
    """Differs on purpose: we divide by the probability or restore the expected norm."""
    base, experts = exact_tensors(0, 3)
    window = {"density": D, "epsilon": (0.125,) * 3}
    expected = theirs(name, base, experts, **W, **window, rescale=False)
    ours = merge(name, base, experts, coefficient=C, density=D, epsilon=0.125, rescale="none")
    assert_same(ours, expected, strangers=EDGE)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
def test_sce_selects_the_same_elements(share: float) -> None:
    base, experts = exact_tensors(0, 3)
    expected = theirs("sce", base, experts, select_topk=share)
    assert_same(merge("sce", base, experts, select_topk=share), expected)


def test_sce_keeps_the_same_side_of_changes_that_cancel() -> None:
    base, experts = torch.zeros(2, 2), [torch.tensor([[1.0, -2], [3, 4]])]
    experts.append(torch.tensor([[-1.0, 2], [-3, 1]]))
    assert_same(merge("sce", base, experts), theirs("sce", base, experts))


@pytest.mark.parametrize(("steps", "tol"), [(1, 1e-5), (2, 1e-5), (10, 1e-2)])
def test_the_karcher_mean_stops_where_it_is_told_to(steps: int, tol: float) -> None:
    _, experts = exact_tensors(0, 3)
    expected = theirs("karcher", None, experts, max_iter=steps, tol=tol)
    assert_same(merge("karcher", None, experts, max_iter=steps, tol=tol), expected)


def test_a_mean_with_coefficients_that_cancel_is_finite_here() -> None:
    """Differs on purpose: mergekit divides by their sum, zero; we divide by one."""
    experts = [torch.tensor([[1.0]]), torch.tensor([[3.0]])]
    assert merge("linear", None, experts, coefficient=(0.5, -0.5)).item() == -1.0
    assert not np.isfinite(theirs("linear", None, experts, weight=(0.5, -0.5))).any()
