"""Methods of matrix algebra beside their papers' formulas in float64, and on odd matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
import torch

from evomerge.methods.base import ParameterValue
from evomerge.methods.observed import ObservedMethod
from evomerge.methods.prepared import Preparation, PreparedMethod, TaskVectors
from evomerge.methods.registry import method, method_names
from tests.methods.running import bound, task_vectors

Matrix = np.ndarray
PREPARED = [
    name
    for name in method_names()
    if issubclass(method(name), PreparedMethod) and not issubclass(method(name), ObservedMethod)
]
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


def iso_cts(taus: Sequence[Matrix], common: float = 0.8) -> Matrix:
    rank, n = min(taus[0].shape), len(taus)
    n_own = round((rank - int(rank * common)) / n)
    u, s, v = (part for part in svd(sum(taus)))
    u, s, v = u[:, : rank - n * n_own], s[: rank - n * n_own], v[: rank - n * n_own]
    own = [svd(tau - u @ u.T @ tau) for tau in taus]
    left = orthogonal(np.hstack([u, *(o[0][:, :n_own] for o in own)]))
    right = orthogonal(np.vstack([v, *(o[2][:n_own] for o in own)]))
    return np.hstack([s, *(o[1][:n_own] for o in own)]).mean() * left @ right


def loss(tau: torch.Tensor, targets, factors, taus) -> torch.Tensor:  # type: ignore[no-untyped-def]
    terms = zip(targets, factors, taus, strict=True)
    return sum((((tau - t) @ f.T) ** 2).sum() / (own**2).sum() for t, f, own in terms)


def descended(start, targets, factors, taus, optimizer) -> Matrix:  # type: ignore[no-untyped-def]
    targets, factors, taus = ([torch.from_numpy(m) for m in ms] for ms in (targets, factors, taus))
    tau = torch.nn.Parameter(torch.from_numpy(start))
    steps = optimizer([tau])
    for _ in range(300):
        steps.zero_grad()
        loss(tau, targets, factors, taus).backward()
        steps.step()
    return tau.detach().numpy()


def adam(parameters):  # type: ignore[no-untyped-def]
    return torch.optim.Adam(parameters, lr=1e-5)


def sgd(parameters):  # type: ignore[no-untyped-def]
    return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)


def wudi(taus: Sequence[Matrix]) -> Matrix:
    return descended(sum(taus), taus, taus, taus, adam)


def wudi_closed(taus: Sequence[Matrix], ridge: float = 0.01) -> Matrix:
    curved = [tau.T @ tau / (tau**2).sum() for tau in taus]
    pull = ridge * np.trace(sum(curved)) / taus[0].shape[1]
    right = sum(tau @ c for tau, c in zip(taus, curved, strict=True)) + pull * sum(taus)
    return right @ np.linalg.inv(sum(curved) + pull * np.eye(taus[0].shape[1]))


def cut(tau: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    u, s, v = svd(tau)
    factor = np.diag(s[:rank]) @ v[:rank]
    return u[:, :rank] @ factor, factor


def optmerge(taus: Sequence[Matrix]) -> Matrix:
    parts = [cut(tau, min(tau.shape) // len(taus)) for tau in taus]
    targets, factors = zip(*parts, strict=True)
    return descended(sum(taus) / len(taus), targets, factors, taus, sgd)


def optmerge_full(taus: Sequence[Matrix]) -> Matrix:
    rank, mean = min(taus[0].shape) // len(taus), sum(taus) / len(taus)
    targets = [mean + cut(tau - mean, rank)[0] for tau in taus]
    return descended(sum(taus), targets, [cut(tau, rank)[1] for tau in taus], taus, adam)


def opcm(taus: Sequence[Matrix], order: Sequence[int] = (0, 1, 2), alpha: float = 0.5) -> Matrix:
    first, *others = order
    total = taus[first]
    for i in others:
        u, s, v = svd(total)
        top = int(np.argmax(np.cumsum(s) / s.sum() > alpha))
        inside = u.T @ taus[i] @ v.T
        kept = inside - np.diag(np.diag(inside))
        kept[:top, :top] = 0
        total = total + taus[i] - u @ inside @ v + u @ kept @ v
    return total * np.mean([np.linalg.norm(tau) for tau in taus]) / np.linalg.norm(total)


def knots(taus: Sequence[Matrix], density: float = 1.0) -> Matrix:
    u, s, v = svd(np.hstack(taus))
    parts = np.stack([np.diag(s) @ part for part in np.split(v, len(taus), axis=1)])
    least = np.sort(np.abs(parts).reshape(len(taus), -1))[:, -int(density * parts[0].size)]
    parts = np.where(np.abs(parts) >= least[:, None, None], parts, 0)
    agree = np.where(parts * np.sign(parts.sum(axis=0)) > 0, parts, 0)
    return u @ (agree.sum(axis=0) / np.maximum((agree != 0).sum(axis=0), 1))


def compeft(taus: Sequence[Matrix], density: float = 0.2) -> Matrix:
    least = [np.sort(np.abs(tau).ravel())[-int(density * tau.size)] for tau in taus]
    pairs = zip(taus, least, strict=True)
    return sum(tau.std() * np.sign(tau) * (np.abs(tau) >= at) for tau, at in pairs)


FORMULAS = {
    "tsv_m": [({}, tsv_m), ({"rank_share": 0.5}, lambda taus: tsv_m(taus, 0.5))],
    "iso_c": [({}, iso_c)],
    "iso_cts": [({}, iso_cts), ({"common": 0.5}, lambda taus: iso_cts(taus, 0.5))],
    "wudi": [
        ({}, wudi),
        ({"solver": "closed"}, wudi_closed),
        ({"solver": "closed", "ridge": 1.0}, lambda taus: wudi_closed(taus, 1.0)),
    ],
    "optmerge": [({}, optmerge), ({"experts": "full"}, optmerge_full)],
    "opcm": [
        ({}, opcm),
        ({"position": (0.7, 0.2, 0.5)}, lambda taus: opcm(taus, (1, 2, 0))),
        ({"alpha": 0.8}, lambda taus: opcm(taus, alpha=0.8)),
    ],
    "knots": [
        ({}, knots),
        ({"density": 0.3}, lambda taus: knots(taus, 0.3)),
        ({"merge": "sum"}, sum),
    ],
    "compeft": [({}, compeft), ({"density": 0.5}, lambda taus: compeft(taus, 0.5))],
}
OF_FACTORS = ["rmm", "lora_lego"]  # see below
TOLERANCES = {"wudi": 2e-5, "optmerge": 2e-5}  # the steps change little more than a thousandth


def test_every_method_has_its_formula_here() -> None:
    assert sorted(PREPARED) == sorted([*FORMULAS, *OF_FACTORS])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_method_is_its_formula(name: str, shape: tuple[int, int]) -> None:
    taus = matrices(shape)
    for values, formula in FORMULAS[name]:
        ours, atol = merged(name, taus, **values), TOLERANCES.get(name, 1e-4)
        np.testing.assert_allclose(ours, formula(wide(taus)), rtol=0, atol=atol)


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


def test_wudi_lowers_its_loss() -> None:
    taus = [tau.double() for tau in matrices((12, 30))]
    start = loss(sum(taus), taus, taus, taus)
    for values in ({}, {"solver": "closed"}):
        found = torch.from_numpy(merged("wudi", [tau.float() for tau in taus], **values))
        assert loss(found, taus, taus, taus) < start
    assert loss(found, taus, taus, taus) < 0.5 * start


def test_opcm_has_one_preparation_for_each_order() -> None:
    def name(*position: float) -> str:
        return bound("opcm", 3, position=position).prepared

    assert name(0.1, 0.2, 0.3) == name(0.0, 0.5, 1.0) == name(0.4, 0.4, 0.4)
    assert len({name(*p) for p in permutations((0.1, 0.5, 0.9))}) == 6


def test_what_does_not_count_is_not_prepared_again() -> None:
    assert bound("wudi", 2, ridge=3.0).prepared == bound("wudi", 2).prepared
    closed = {"solver": "closed"}
    assert bound("wudi", 2, steps=7, **closed).prepared == bound("wudi", 2, **closed).prepared


# --- adapters, by their factors ---


def adapters(k: int = 3, rank: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    shapes = ((12, rank), (rank, 30))
    return [tuple(torch.randn(s, generator=random) for s in shapes) for _ in range(k)]  # type: ignore[misc]


def from_factors(
    name: str, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], **values: ParameterValue
) -> list[torch.Tensor]:
    read = [lambda p=pair: p[0] @ p[1] for pair in pairs]
    tensor = TaskVectors((12, 30), read, [lambda p=pair: p for pair in pairs])
    return list(Preparation.parse(bound(name, len(pairs), **values).prepared).run(tensor))


def test_rmm_is_principal_components_at_each_row_and_column() -> None:
    pairs = adapters(k=4, rank=3)

    def rebuilt(points: Matrix, p: int) -> Matrix:
        centre = points.mean(axis=0)
        basis = np.linalg.svd(points - centre)[2][:p]
        return centre + (points - centre) @ basis.T @ basis

    for p in (1, 2):
        left, right = (np.stack([pair[i].double().numpy() for pair in pairs]) for i in (0, 1))
        for row in range(12):
            left[:, row] = rebuilt(left[:, row], p)
        for column in range(30):
            right[:, :, column] = rebuilt(right[:, :, column], p)
        for ours, b, a in zip(from_factors("rmm", pairs, components=p), left, right, strict=True):
            np.testing.assert_allclose(ours.numpy(), b @ a, rtol=0, atol=1e-4)


def test_rmm_with_all_components_restores_every_adapter() -> None:
    pairs = adapters()
    for ours, (b, a) in zip(from_factors("rmm", pairs, components=2), pairs, strict=True):
        torch.testing.assert_close(ours, b @ a, rtol=0, atol=1e-4)


def test_lora_lego_is_the_centres_of_clusters() -> None:
    """Three adapters whose units lie about two directions, in other orders."""
    (b, a), *_ = adapters(rank=2)
    noise = adapters(k=3)
    pairs = [(b + 0.1 * db, a + 0.1 * da) for db, da in noise]
    pairs[1] = (pairs[1][0].flip(1), pairs[1][1].flip(0))
    expected = 0
    for unit in range(2):
        places = [unit, 1 - unit, unit]
        members = [
            np.concatenate([a[i].double().numpy(), b[:, i].double().numpy()])
            for i, (b, a) in zip(places, pairs, strict=True)
        ]
        centre = np.mean(members, axis=0)
        centre *= np.mean([np.linalg.norm(m) for m in members]) / np.linalg.norm(centre)
        expected = expected + np.outer(centre[30:], centre[:30])
    ours = from_factors("lora_lego", pairs)
    np.testing.assert_allclose(sum(ours).numpy(), expected, rtol=0, atol=1e-4)
    thirds = [part.numpy() for part in ours]
    np.testing.assert_allclose(thirds[0], expected / 3, rtol=0, atol=1e-4)
    single = sum(from_factors("lora_lego", pairs, clusters=1)).double()
    assert int(torch.linalg.matrix_rank(single, rtol=1e-5)) == 1


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
    if (name, odd) != ("wudi", "tiny changes"):  # steps of Adam have a size
        assert float(sum(found).norm()) <= 1.01 * largest
    if odd == "no expert changed":
        assert not any(p.any() for p in found)


ONE_IS_ITSELF = [*("tsv_m", "wudi", "optmerge", "opcm", "knots", "rmm", "lora_lego")]


@pytest.mark.parametrize("name", ONE_IS_ITSELF)
@pytest.mark.parametrize("odd", ["one expert", "low rank"])
def test_one_expert_alone_is_itself(name: str, odd: str) -> None:
    tau = ODD[odd][0]
    torch.testing.assert_close(prepared(name, [tau])[0], tau, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PREPARED)
def test_the_same_in_another_unit_is_the_same(name: str) -> None:
    """Task vectors times a number are prepared to the same times that number."""
    taus = matrices((12, 30))
    values = {"solver": "closed"} if name == "wudi" else {}  # steps of Adam have a size
    small = prepared(name, [2.0**-20 * tau for tau in taus], **values)
    for p, q in zip(prepared(name, taus, **values), small, strict=True):
        torch.testing.assert_close(2.0**20 * q, p, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORMULAS)
def test_factors_are_prepared_as_their_product(name: str) -> None:
    pairs = adapters()
    whole, found = prepared(name, [b @ a for b, a in pairs]), from_factors(name, pairs)
    for p, q in zip(whole, found, strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PREPARED)
def test_a_preparation_depends_on_what_says_so_alone(name: str) -> None:
    kind = method(name)
    values = {p.name: p.search[1] for p in kind.parameters().values() if p.slope}
    assert bound(name, 3, **values).prepared == bound(name, 3).prepared
    for name_of, parameter in kind.parameters().items():
        if name_of in bound(name, 3).prepared_values() and parameter.prepares is True:
            other = parameter.choices[-1] if parameter.choices else parameter.high
            if other == parameter.default:
                other = parameter.low
            assert bound(name, 3, **{name_of: other}).prepared != bound(name, 3).prepared
