"""Methods of matrix algebra beside their papers' formulas in float64, and on odd matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from evomerge.methods.base import ParameterValue
from evomerge.methods.prepared import Preparation, PreparedMethod, TaskVectors
from evomerge.methods.registry import method, method_names
from tests.methods.running import bound, task_vectors

Matrix = np.ndarray
PREPARED = [name for name in method_names() if issubclass(method(name), PreparedMethod)]
SHAPES = [(12, 30), (30, 12), (16, 16)]


def matrices(shape: tuple[int, ...], k: int = 3, seed: int = 0) -> list[torch.Tensor]:
    """Task vectors that have something in common."""
    random = torch.Generator().manual_seed(seed)
    common = torch.randn(shape, generator=random)
    return [0.5 * common + torch.randn(shape, generator=random) for _ in range(k)]


def prepared(
    name: str, taus: Sequence[torch.Tensor], **values: ParameterValue
) -> list[torch.Tensor]:
    preparation = Preparation.parse(bound(name, len(taus), **values).prepared)
    return list(preparation.run(task_vectors(None, taus)))


def merged(name: str, taus: Sequence[torch.Tensor], **values: ParameterValue) -> Matrix:
    """The merged task vector with all coefficients 1."""
    return sum(prepared(name, taus, **values)).double().numpy()


def wide(taus: Sequence[torch.Tensor]) -> list[Matrix]:
    return [tau.double().numpy() for tau in taus]


def svd(matrix: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    return np.linalg.svd(matrix, full_matrices=False)


def orthogonal(matrix: Matrix) -> Matrix:
    left, _, right = svd(matrix)
    return left @ right


# --- formulas, of full rank ---


def tsv_m(taus: Sequence[Matrix], share: float = 1.0) -> Matrix:
    rank = int(min(taus[0].shape) * share / len(taus))
    parts = [svd(tau) for tau in taus]
    left = orthogonal(np.hstack([u[:, :rank] for u, _, _ in parts]))
    right = orthogonal(np.vstack([v[:rank] for _, _, v in parts]))
    return left @ np.diag(np.hstack([s[:rank] for _, s, _ in parts])) @ right


def iso_c(taus: Sequence[Matrix]) -> Matrix:
    u, s, v = svd(sum(taus))
    return s.mean() * u @ v


FORMULAS = {
    "tsv_m": [({}, tsv_m), ({"rank_share": 0.5}, lambda taus: tsv_m(taus, 0.5))],
    "iso_c": [({}, iso_c)],
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PREPARED)
def test_a_method_is_its_formula(name: str, shape: tuple[int, int]) -> None:
    taus = matrices(shape)
    for values, formula in FORMULAS[name]:
        np.testing.assert_allclose(
            merged(name, taus, **values), formula(wide(taus)), rtol=0, atol=1e-4
        )


def test_coefficients_of_tsv_m_multiply_singular_values() -> None:
    taus, c = matrices((12, 30)), (0.3, 1.2, -0.4)
    parts = [svd(tau) for tau in wide(taus)]
    left = orthogonal(np.hstack([u[:, :4] for u, _, _ in parts]))
    right = orthogonal(np.vstack([v[:4] for _, _, v in parts]))
    scaled = [w * s[:4] for w, (_, s, _) in zip(c, parts, strict=True)]
    ours = sum(w * p.double().numpy() for w, p in zip(c, prepared("tsv_m", taus), strict=True))
    np.testing.assert_allclose(ours, left @ np.diag(np.hstack(scaled)) @ right, rtol=0, atol=1e-4)


def test_iso_c_has_a_flat_spectrum() -> None:
    values = np.linalg.svd(merged("iso_c", matrices((12, 30))), compute_uv=False)
    np.testing.assert_allclose(values, values.mean(), rtol=1e-5)


# --- odd matrices, for all of them ---


def low_rank(shape: tuple[int, int], rank: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape[0], rank, generator=random) @ torch.randn(
        rank, shape[1], generator=random
    )


ODD = {
    "one expert": matrices((12, 30), k=1),
    "identical experts": matrices((12, 30), k=1) * 3,
    "opposite experts": [(m := matrices((12, 30), k=1)[0]), -m],
    "no expert changed": [torch.zeros(12, 30)] * 3,
    "one expert did not change": [*matrices((12, 30), k=2), torch.zeros(12, 30)],
    "low rank": [low_rank((12, 30), 2, seed) for seed in range(3)],
    "one row": matrices((1, 30)),
    "one column": matrices((30, 1)),
    "fewer rows than experts": matrices((2, 30), k=5),
    "vectors": matrices((30,)),
    "stacks of matrices": matrices((3, 8, 6)),
    "a number": matrices(()),
    "nothing": matrices((0, 4)),
    "tiny changes": [1e-12 * m for m in matrices((12, 30))],
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", PREPARED)
def test_odd_tensors_are_prepared_to_finite_ones_of_their_shape(name: str, odd: str) -> None:
    taus = ODD[odd]
    found = prepared(name, taus)
    assert len(found) == len(taus)
    assert {(p.shape, p.dtype) for p in found} == {(taus[0].shape, torch.float32)}
    assert all(torch.isfinite(p).all() for p in found)
    largest = sum(float(tau.norm()) for tau in taus)
    assert float(sum(found).norm()) <= 1.01 * largest
    if odd == "no expert changed":
        assert not any(p.any() for p in found)


ONE_IS_ITSELF = ["tsv_m"]


@pytest.mark.parametrize("name", ONE_IS_ITSELF)
@pytest.mark.parametrize("odd", ["one expert", "low rank"])
def test_one_expert_alone_is_itself(name: str, odd: str) -> None:
    tau = ODD[odd][0]
    torch.testing.assert_close(prepared(name, [tau])[0], tau, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PREPARED)
def test_the_same_in_another_unit_is_the_same(name: str) -> None:
    """Task vectors times a number are prepared to the same times that number."""
    taus = matrices((12, 30))
    small = prepared(name, [2.0**-20 * tau for tau in taus])
    for p, q in zip(prepared(name, taus), small, strict=True):
        torch.testing.assert_close(2.0**20 * q, p, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PREPARED)
def test_factors_are_prepared_as_their_product(name: str) -> None:
    random = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(12, 2, generator=random), torch.randn(2, 30, generator=random))
        for _ in range(3)
    ]
    taus = [b @ a for b, a in pairs]
    whole = prepared(name, taus)
    read = [lambda t=tau: t for tau in taus]
    factored = TaskVectors((12, 30), read, [lambda p=pair: p for pair in pairs])
    found = Preparation.parse(bound(name, 3).prepared).run(factored)
    for p, q in zip(whole, found, strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PREPARED)
def test_a_preparation_depends_on_what_says_so_alone(name: str) -> None:
    kind = method(name)
    values = {p.name: p.search[1] for p in kind.parameters().values() if p.slope}
    assert bound(name, 3, **values).prepared == bound(name, 3).prepared
    for p in kind.parameters().values():
        if p.prepares and not p.per_expert:
            other = p.choices[-1] if p.choices else not p.default if p.default in (0, 1) else p.low
            if isinstance(p.default, float):
                other = p.low if p.default != p.low else p.high
            assert bound(name, 3, **{p.name: other}).prepared != bound(name, 3).prepared
