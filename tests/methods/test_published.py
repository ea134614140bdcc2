"""Each method against its published formula, computed by brute force."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import MergeJob
from evomerge.kernels.reference import merge_reference
from tests.methods import published as paper
from tests.methods.running import (
    COLUMNS,
    ROWS,
    FloatArray,
    bound,
    context,
    exact_tensors,
    is_kept,
    merge,
)

C = (0.7, 0.4, 1.1)
D = (0.5, 0.25, 0.75)
N = ROWS * COLUMNS
K = len(C)

Formula = Callable[[FloatArray, list[FloatArray]], FloatArray]


def trimmed(b: FloatArray, xs: list[FloatArray], d: tuple[float, ...] = D) -> list[FloatArray]:
    return [
        np.where(paper.largest(t, share), t, 0.0)
        for t, share in zip(paper.taus(b, xs), d, strict=True)
    ]


def crumbs(b: FloatArray, xs: list[FloatArray], top: float, *, row: bool) -> list[FloatArray]:
    mark = paper.in_each_row if row else paper.without_outliers
    return [
        np.where(mark(t, share, top), t, 0.0) for t, share in zip(paper.taus(b, xs), D, strict=True)
    ]


def dropped(b: FloatArray, xs: list[FloatArray], rescale: str = "inv_p") -> list[FloatArray]:
    found = []
    for i, (t, share) in enumerate(zip(paper.taus(b, xs), D, strict=True)):
        kept = np.where(is_kept(i, share), t, 0.0)
        factor = {
            "inv_p": 1 / share,
            "none": 1.0,
            "l1": np.abs(t).sum() / np.abs(kept).sum(),
            "l2": np.linalg.norm(t) / np.linalg.norm(kept),
        }[rescale]
        found.append(factor * kept)
    return found


def ranked(b: FloatArray, xs: list[FloatArray], rescale: str = "inv_p") -> list[FloatArray]:
    found = []
    for i, (t, share) in enumerate(zip(paper.taus(b, xs), D, strict=True)):
        p = share - 0.125 + 0.25 * paper.row_ranks(t)
        kept = np.where(is_kept(i, p), t, 0.0)
        expected = {
            "inv_p": 1 / p,
            "none": 1.0,
            "l1": np.abs(t).sum() / (p * np.abs(t)).sum(),
            "l2": np.sqrt((t**2).sum() / (p * t**2).sum()),
        }[rescale]
        found.append(kept * expected)
    return found


CASES: list[tuple[str, dict[str, object], Formula]] = [
    ("linear", {"coefficient": C}, lambda b, xs: paper.linear(xs, C)),
    (
        "task_arithmetic",
        {"coefficient": C, "lambda_": 0.8},
        lambda b, xs: paper.task_arithmetic(b, xs, C, 0.8),
    ),
    (
        "ties",
        {"coefficient": C, "density": D, "lambda_": 0.8},
        lambda b, xs: paper.elected(b, trimmed(b, xs), C, scale=0.8),
    ),
    *(
        (
            "ties",
            {"coefficient": C, "density": D, "vote": vote, "zero_sign": zero, "normalize": False},
            lambda b, xs, vote=vote, number=number: paper.elected(
                b, trimmed(b, xs), C, vote=vote, zero=number, normalize=False
            ),
        )
        for vote in ("weighted", "unweighted", "count")
        for zero, number in (("positive", 1), ("negative", -1), ("none", 0))
    ),
    *(
        (
            "dare_linear",
            {"coefficient": C, "density": D, "rescale": rescale},
            lambda b, xs, r=rescale: paper.summed(b, dropped(b, xs, r), C),
        )
        for rescale in ("inv_p", "l1", "l2", "none")
    ),
    *(
        (
            "dare_ties",
            {"coefficient": C, "density": D, "normalize": normalize},
            lambda b, xs, n=normalize: paper.elected(b, dropped(b, xs), C, normalize=n),
        )
        for normalize in (True, False)
    ),
    *(
        (
            "della_linear",
            {"coefficient": C, "density": D, "epsilon": 0.125, "rescale": rescale},
            lambda b, xs, r=rescale: paper.summed(b, ranked(b, xs, r), C),
        )
        for rescale in ("inv_p", "l1", "l2", "none")
    ),
    (
        "della",
        {"coefficient": C, "density": D, "epsilon": 0.125},
        lambda b, xs: paper.elected(b, ranked(b, xs), C),
    ),
    (
        "consensus",
        {"coefficient": C, "density": D, "mask_ratio": (0.2, 0.4, 0.6), "agreement": 2.0},
        lambda b, xs: paper.consensus(b, trimmed(b, xs), C, (0.2, 0.4, 0.6), 2),
    ),
    ("emr", {"coefficient": C}, lambda b, xs: paper.emr(b, xs, C)),
    ("magmax", {"coefficient": C}, lambda b, xs: paper.magmax(b, xs, C)),
    ("varm", {}, paper.varm),
    (
        "sce",
        {"select_topk": 1.0},
        lambda b, xs: paper.sce(b, xs, 1.0, "masked"),
    ),
    ("ram", {"tolerance": 0.2}, lambda b, xs: paper.ram(b, xs, 0.2)),
    (
        "ramplus",
        {"tolerance": 0.5, "boost": 0.5, "boost_cap": 2.0},
        lambda b, xs: paper.ram(b, xs, 0.5, 0.5, 2.0),
    ),
    (
        "localize_and_stitch",
        {"density": 0.125},
        lambda b, xs: paper.localize_and_stitch(b, xs, 0.125),
    ),
    (
        "widen",
        {"above": 1.2, "calibration": 0.9},
        lambda b, xs: paper.widen(b, xs, 1.2, 0.9),
    ),
    (
        "multislerp",
        {"coefficient": C},
        lambda b, xs: b + paper.multislerp(paper.taus(b, xs), C),
    ),
    ("karcher", {"coefficient": C}, lambda b, xs: paper.karcher(xs, C)),
    *(
        (
            "model_stock",
            {"average": average},
            lambda b, xs, a=average: paper.model_stock(b, xs, a),
        )
        for average in ("cosine", "angle")
    ),
    (
        "model_stock",
        {"filter_wise": True},
        lambda b, xs: np.stack(
            [paper.model_stock(b[i], [x[i] for x in xs], "cosine") for i in range(ROWS)]
        ),
    ),
    *(
        (
            "variance_corrected",
            {"coefficient": C, "kappa": kappa},
            lambda b, xs, k=kappa: paper.variance_corrected(xs, C, k),
        )
        for kappa in (0.0, 0.5, 1.0)
    ),
    (
        "doge_lambda",
        {"coefficient": C, "eta": 0.3},
        lambda b, xs: paper.doge_lambda(b, xs, C, 0.3),
    ),
]

ONE_EXPERT: list[tuple[str, dict[str, object], Formula]] = [
    ("wise_ft", {"alpha": 0.3}, lambda b, xs: 0.7 * b + 0.3 * xs[0]),
    ("nearswap", {"limit": 0.2}, lambda b, xs: paper.nearswap(b, xs[0], 0.2)),
    ("slerp", {"t": 0.3}, lambda b, xs: paper.slerp(b, xs[0], 0.3)),
]

TWO_EXPERTS: list[tuple[str, dict[str, object], Formula]] = [
    ("slerp", {"t": 0.3}, lambda b, xs: paper.slerp(xs[0], xs[1], 0.3)),
    (
        "nuslerp",
        {"coefficient": (0.6, 0.2)},
        lambda b, xs: b + paper.slerp(*paper.taus(b, xs), 0.25),
    ),
    (
        "nuslerp",
        {"coefficient": (0.6, 0.2), "row_wise": True},
        lambda b, xs: (
            b + np.stack([paper.slerp(xs[0][i] - b[i], xs[1][i] - b[i], 0.25) for i in range(ROWS)])
        ),
    ),
]

ALL = [(3, *case) for case in CASES]
ALL += [(1, *case) for case in ONE_EXPERT] + [(2, *case) for case in TWO_EXPERTS]


def wide(base: torch.Tensor, experts: list[torch.Tensor]) -> tuple[FloatArray, list[FloatArray]]:
    return base.double().numpy(), [expert.double().numpy() for expert in experts]


def label(value: object) -> str | None:
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items() if isinstance(v, (str, bool)))
    return None if callable(value) else str(value)


@pytest.mark.parametrize(("k", "name", "values", "formula"), ALL, ids=label)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_published_formula(
    seed: int, k: int, name: str, values: dict[str, object], formula: Formula
) -> None:
    base, experts = exact_tensors(seed, k)
    expected = formula(*wide(base, experts))
    np.testing.assert_allclose(merge(name, base, experts, **values), expected, atol=1e-6, rtol=1e-6)


def run_fast(plan, base, experts):  # type: ignore[no-untyped-def]
    out = torch.full_like(experts[0], float("nan"))
    merge_all([MergeJob(plan, base, experts, out)])
    return out


@pytest.mark.parametrize(("k", "name", "values", "formula"), ALL, ids=label)
def test_the_kernel_in_use_equals_the_published_formula(
    k: int, name: str, values: dict[str, object], formula: Formula
) -> None:
    base, experts = exact_tensors(2, k)
    merged = merge(name, base, experts, run=run_fast, **values)
    np.testing.assert_allclose(merged, formula(*wide(base, experts)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scope", ["tensor", "row"])
@pytest.mark.parametrize("gamma", [0.0, 0.001, 0.1, 0.125, 0.8])
def test_breadcrumbs_keeps_the_published_band(scope: str, gamma: float) -> None:
    base, experts = exact_tensors(0, K)
    b, xs = wide(base, experts)
    values = {"coefficient": C, "density": D, "gamma": gamma, "scope": scope}
    kept = crumbs(b, xs, gamma, row=scope == "row")
    merged = merge("breadcrumbs", base, experts, **values)
    np.testing.assert_allclose(merged, paper.summed(b, kept, C), atol=1e-6)
    merged = merge("breadcrumbs_ties", base, experts, **values)
    np.testing.assert_allclose(merged, paper.elected(b, kept, C, normalize=False), atol=1e-6)


def test_breadcrumbs_drops_no_outlier_where_gamma_is_less_than_an_element() -> None:
    """Of 64 numbers 0.01 is less than one, of 128 numbers it is one."""
    for n, dropped in ((64, 0), (128, 1)):
        change = torch.arange(1.0, n + 1)
        merged = merge("breadcrumbs", torch.zeros(n), [change], density=0.5, gamma=0.01)
        assert (merged > 0).sum() == n // 2
        assert merged.max() == n - dropped


@pytest.mark.parametrize("mode", ["masked", "weights_only"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
def test_sce_selects_and_weighs_as_published(mode: str, share: float) -> None:
    base, experts = exact_tensors(0, K)
    b, xs = wide(base, experts)
    for merged in (
        merge("sce", base, experts, select_topk=share, sce_mode=mode),
        merge("sce", base, experts, run=run_fast, select_topk=share, sce_mode=mode),
    ):
        np.testing.assert_allclose(merged, paper.sce(b, xs, share, mode), atol=1e-5)


def test_sce_keeps_the_positive_side_of_changes_that_cancel() -> None:
    """Erasing keeps the sign of the sum, which is positive from zero on."""
    base, experts = torch.zeros(3), [torch.tensor(x) for x in ([1.0, -2, 3], [-1.0, 2, 1])]
    energy = [14.0, 6.0]
    mixed = (3 * energy[0] + 1 * energy[1]) / sum(energy)
    for run in (merge_reference, run_fast):
        merged = merge("sce", base, experts, run=run)
        np.testing.assert_allclose(merged, [1.0, 2.0, mixed], rtol=1e-6)


def test_tatr_drops_the_published_elements() -> None:
    base, experts = exact_tensors(0, K)
    b, xs = wide(base, experts)
    merged = merge("tatr", base, experts, trust=0.75)
    np.testing.assert_allclose(merged, paper.tatr(b, xs, 0.75), atol=1e-6)


@pytest.mark.parametrize("fence", [0.0, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_arcee_fusion_takes_the_published_elements(fence: float, seed: int) -> None:
    base, experts = exact_tensors(seed, 1)
    b, xs = wide(base, experts)
    for run in (merge_reference, run_fast):
        merged = merge("arcee_fusion", base, experts, run=run, fence=fence)
        np.testing.assert_allclose(merged, paper.arcee_fusion(b, xs[0], fence), atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 1e-4, 0.0625])
@pytest.mark.parametrize("ratio", [0.05, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_pcb_weighs_and_clips_as_published(seed: int, clip: float, ratio: float) -> None:
    base, experts = exact_tensors(seed, K)
    b, xs = wide(base, experts)
    expected = paper.pcb(b, xs, C, ratio, clip)
    for run in (merge_reference, run_fast):
        merged = merge("pcb", base, experts, run=run, coefficient=C, score_ratio=ratio, clip=clip)
        np.testing.assert_allclose(merged, expected, atol=2e-4)


def test_widen_scores_tokens_of_an_embedding_and_elements_of_a_vector() -> None:
    base, experts = exact_tensors(0, K)
    b, xs = wide(base, experts)
    where = context(base, experts, is_embedding=True)
    plan = bound("widen", K, above=1.2, calibration=0.9).lower(where)
    expected = paper.widen(b.T, [x.T for x in xs], 1.2, 0.9).T
    np.testing.assert_allclose(merge_reference(plan, base, experts), expected, atol=1e-6)
    np.testing.assert_allclose(run_fast(plan, base, experts), expected, atol=1e-5)
    flat = [x.reshape(-1) for x in (base, *experts)]
    merged = merge("widen", flat[0], flat[1:], above=1.2, calibration=0.9)
    expected = paper.widen_vector(*wide(flat[0], flat[1:]), 1.2, 0.9)
    np.testing.assert_allclose(merged, expected, atol=1e-6)


def test_without_a_base_spherical_methods_merge_the_models() -> None:
    _, experts = exact_tensors(0, 2)
    xs = [x.double().numpy() for x in experts]
    for name, values, expected in [
        ("nuslerp", {"coefficient": (0.6, 0.2)}, paper.slerp(*xs, 0.25)),
        ("multislerp", {"coefficient": (0.6, 0.2)}, paper.multislerp(xs, (0.6, 0.2))),
        ("karcher", {"coefficient": (0.6, 0.2)}, paper.karcher(xs, (0.6, 0.2))),
    ]:
        np.testing.assert_allclose(merge(name, None, experts, **values), expected, atol=1e-6)
