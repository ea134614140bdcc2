"""Methods with data, each against its definition in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from evomerge.methods.base import Method
from evomerge.methods.prepared import PreparedMethod, TaskVectors
from evomerge.methods.registry import method
from tests.methods.running import bound

ROWS, COLUMNS, N = 5, 7, 3


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grams(seed: int, size: int, n: int = N, tokens: int = 40) -> list[torch.Tensor]:
    inputs = [draw(seed + i, tokens, size) * (1 + torch.arange(size) % 3) for i in range(n)]
    return [x.T @ x / len(x) for x in inputs]


def vectors(n: int = N, *shape: int) -> list[torch.Tensor]:
    return [draw(100 + i, *(shape or (ROWS, COLUMNS))) for i in range(n)]


def tensor(own: Sequence[torch.Tensor], **observed: Sequence[torch.Tensor | None]) -> TaskVectors:
    read = [lambda one=one: one for one in own]
    seen = {kind: [lambda one=one: one for one in several] for kind, several in observed.items()}
    return TaskVectors(tuple(own[0].shape), read, [lambda: None] * len(own), seen)


def prepared(
    name: str, own: Sequence[torch.Tensor], observed: Mapping[str, Sequence[object]], **values
) -> list[torch.Tensor]:
    found = bound(name, len(own), **values)
    assert isinstance(found, PreparedMethod)
    return list(found.prepare(tensor(own, **observed)))


def total(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(parts)).double().sum(0)


def close(found: torch.Tensor, wanted: torch.Tensor | np.ndarray) -> None:
    torch.testing.assert_close(
        found.double(), torch.as_tensor(wanted).double(), rtol=1e-5, atol=1e-6
    )


INFLUENCE = (0.5, 2.0, 1.0)


@pytest.mark.parametrize("influence", [1.0, INFLUENCE])
@pytest.mark.parametrize("shape", [(ROWS, COLUMNS), (COLUMNS,), (2, 3, 4)])
def test_fisher_is_the_weighted_mean_of_every_element(shape, influence) -> None:
    own = vectors(N, *shape)
    diagonals = [draw(i, *shape).square() * 1e-6 for i in range(N)]
    found = prepared("fisher", own, {"fisher": diagonals}, influence=influence)
    weights = influence if isinstance(influence, tuple) else (1.0,) * N
    upper = sum(
        w * (f.double() + 1e-6) * t for w, f, t in zip(weights, diagonals, own, strict=True)
    )
    lower = sum(w * (f.double() + 1e-6) for w, f in zip(weights, diagonals, strict=True))
    close(total(found), upper / lower)


def test_a_constant_fisher_is_the_weighted_mean() -> None:
    own, flat = vectors(), [torch.full((ROWS, COLUMNS), 3.0)] * N
    found = prepared("fisher", own, {"fisher": flat}, influence=INFLUENCE)
    close(total(found), sum(w * t for w, t in zip(INFLUENCE, own, strict=True)) / sum(INFLUENCE))
    several = [torch.full((ROWS, COLUMNS), 3.0 * (i + 1)) for i in range(N)]
    close(total(prepared("fisher", own, {"fisher": several}, exponent=0.0)), total(own) / N)


def test_elements_that_no_expert_depends_on_are_averaged() -> None:
    nothing = [torch.zeros(ROWS, COLUMNS)] * N
    found = prepared("fisher", vectors(), {"fisher": nothing}, floor=0.0)
    close(total(found), total(vectors()) / N)


@pytest.mark.parametrize("influence", [1.0, INFLUENCE])
@pytest.mark.parametrize("name", ["regmean", "regmean_plus_plus"])
def test_regmean_solves_the_normal_equations_of_all_inputs(name: str, influence) -> None:
    own = vectors()
    inputs = [draw(i, 40, COLUMNS) for i in range(N)]
    kind = method(name).observations[0]
    observed = {kind: [x.T @ x / len(x) for x in inputs]}
    found = prepared(name, own, observed, influence=influence, off_diagonal=1.0)
    weights = influence if isinstance(influence, tuple) else (1.0,) * N
    stacked = np.vstack([w**0.5 * x.double().numpy() for w, x in zip(weights, inputs, strict=True)])
    targets = np.vstack(
        [
            w**0.5 * (x.double() @ t.double().T).numpy()
            for w, x, t in zip(weights, inputs, own, strict=True)
        ]
    )
    close(total(found), np.linalg.lstsq(stacked, targets, rcond=None)[0].T)


def test_each_expert_has_its_share_of_the_solution() -> None:
    own, seen = vectors(), grams(0, COLUMNS)
    found = prepared("regmean", own, {"input_gram": seen}, off_diagonal=0.9)
    soft = [0.9 * g.double() + 0.1 * torch.diag(g.double().diagonal()) for g in seen]
    for part, vector, gram in zip(found, own, soft, strict=True):
        close(part, vector.double() @ gram @ torch.linalg.inv(sum(soft)))


@pytest.mark.parametrize("name", ["regmean", "mats"])
def test_with_white_inputs_regmean_is_the_mean(name: str) -> None:
    white = [torch.eye(COLUMNS)] * N
    close(total(prepared(name, vectors(), {"input_gram": white})), total(vectors()) / N)
    found = prepared(name, vectors(), {"input_gram": white}, influence=INFLUENCE)
    wanted = sum(w * t for w, t in zip(INFLUENCE, vectors(), strict=True)) / sum(INFLUENCE)
    close(total(found), wanted)


@pytest.mark.parametrize("name", ["regmean", "mats"])
def test_directions_without_inputs_are_averaged(name: str) -> None:
    seen = [torch.diag(torch.tensor([float(i + 1), 1.0, 2.0] + [0.0] * 4)) for i in range(N)]
    found = total(prepared(name, vectors(), {"input_gram": seen}))
    close(found[:, 3:], total(vectors())[:, 3:] / N)
    close(found[:, 0], sum((i + 1) * t[:, 0] for i, t in enumerate(vectors())) / 6)
    low = [x.T @ x for x in (draw(i, 2, COLUMNS) for i in range(N))]
    singular = prepared(name, vectors(), {"input_gram": low}, off_diagonal=1.0, **LONG[name])
    residual = sum(
        (t.double() - total(singular)) @ g.double() for t, g in zip(vectors(), low, strict=True)
    )
    assert residual.abs().max() < 1e-4


LONG = {"regmean": {}, "mats": {"iterations": 500}}


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_mats_equals_a_dense_solve(factor: float) -> None:
    own, a, b = vectors(), grams(0, COLUMNS), grams(50, ROWS)
    observed = {"input_gram": a, "gradient_gram": b}
    found = prepared(
        "mats", own, observed, influence=INFLUENCE, off_diagonal=factor, iterations=500
    )
    soft = [
        [factor * g.double() + (1 - factor) * torch.diag(g.double().diagonal()) for g in several]
        for several in (a, b)
    ]
    operators = [w * torch.kron(bi, ai) for w, ai, bi in zip(INFLUENCE, *soft, strict=True)]
    for part, operator, vector in zip(found, operators, own, strict=True):
        right = operator @ vector.double().reshape(-1)
        close(part, torch.linalg.solve(sum(operators), right).reshape(ROWS, COLUMNS))


def test_mats_without_gradients_is_regmean_and_with_diagonals_is_fisher() -> None:
    own, a = vectors(), grams(0, COLUMNS)
    white = [torch.eye(ROWS)] * N
    with_white = prepared("mats", own, {"input_gram": a, "gradient_gram": white}, iterations=500)
    regmean = prepared("regmean", own, {"input_gram": a}, off_diagonal=1.0)
    for one, other, third in zip(
        with_white, regmean, prepared("mats", own, {"input_gram": a}, iterations=500), strict=True
    ):
        close(one, other)
        close(third, other)
    b = grams(50, ROWS)
    diagonal = prepared(
        "mats", own, {"input_gram": a, "gradient_gram": b}, off_diagonal=0.0, iterations=500
    )
    kronecker = [torch.outer(bi.diagonal(), ai.diagonal()) for ai, bi in zip(a, b, strict=True)]
    fisher = prepared("fisher", own, {"fisher": kronecker}, floor=0.0)
    close(total(diagonal), total(fisher))


def test_numbers_of_steps_and_directions_may_be_written_as_floats() -> None:
    seen = {"input_gram": grams(0, COLUMNS)}
    for name, key in (("mats", "iterations"), ("cat", "removed")):
        whole, real = (prepared(name, vectors(), seen, **{key: n}) for n in (3, 3.0))
        assert torch.equal(torch.stack(whole), torch.stack(real))


def test_mats_starts_from_the_mean_and_comes_nearer() -> None:
    own, observed = vectors(), {"input_gram": grams(0, COLUMNS), "gradient_gram": grams(9, ROWS)}

    def missed(iterations: int) -> float:
        x = total(prepared("mats", own, observed, iterations=iterations))
        pairs = zip(own, observed["input_gram"], observed["gradient_gram"], strict=True)
        d = [(x - t.double(), a.double(), b.double()) for t, a, b in pairs]
        return float(sum((e * (b @ e @ a)).sum() for e, a, b in d))

    close(total(prepared("mats", own, observed, iterations=0)), total(own) / N)
    assert missed(0) > missed(3) > missed(100)


def cat_by_loops(own, seen, *, removed: int, retention: float) -> list[np.ndarray]:
    """As the paper writes it: matrices are (inputs, outputs) and act on rows."""
    t = [one.double().numpy().T for one in own]
    g = [one.double().numpy() for one in seen]
    out = [one.copy() for one in t]
    for k in range(len(t)):
        if len(t) == 1:
            break
        m = sum(t[i].T @ (g[k] - retention * g[i]) @ t[i] for i in range(len(t)) if i != k)
        values, basis = np.linalg.eigh(m)
        chosen = [j for j in np.argsort(values)[::-1][:removed] if values[j] > 0]
        for i in range(len(t)):
            if i != k:
                out[i] = out[i] - out[i] @ basis[:, chosen] @ basis[:, chosen].T
    return [one.T for one in out]


@pytest.mark.parametrize("shape", [(ROWS, COLUMNS), (40, COLUMNS)])
@pytest.mark.parametrize(("removed", "retention"), [(2, 1.0), (1, 0.2), (3, 0.0)])
def test_cat_takes_out_conflicting_directions(shape, removed: int, retention: float) -> None:
    own, seen = vectors(N, *shape), grams(0, COLUMNS)
    found = prepared("cat", own, {"input_gram": seen}, removed=float(removed), retention=retention)
    for one, other in zip(
        found, cat_by_loops(own, seen, removed=removed, retention=retention), strict=True
    ):
        close(one, other)
    assert any((one - vector).abs().max() > 0.1 for one, vector in zip(found, own, strict=True))


def test_cat_that_takes_out_nothing_is_task_arithmetic() -> None:
    found = prepared("cat", vectors(), {"input_gram": grams(0, COLUMNS)}, removed=0.0)
    close(total(found), total(vectors()))


OBSERVED = {
    "fisher": lambda n: {"fisher": [draw(i, ROWS, COLUMNS).square() for i in range(n)]},
    "regmean": lambda n: {"input_gram": grams(0, COLUMNS, n)},
    "regmean_plus_plus": lambda n: {"propagated_gram": grams(0, COLUMNS, n)},
    "mats": lambda n: {
        "input_gram": grams(0, COLUMNS, n),
        "gradient_gram": grams(50, ROWS, n),
    },
    "cat": lambda n: {"input_gram": grams(0, COLUMNS, n)},
}


@pytest.mark.parametrize("name", OBSERVED)
def test_one_expert_is_itself_and_equal_ones_are_the_sum_of_their_shares(name: str) -> None:
    (own,) = vectors(1)
    close(prepared(name, [own], OBSERVED[name](1))[0], own)
    if name != "cat":
        close(total(prepared(name, [own] * N, OBSERVED[name](N))), own)


@pytest.mark.parametrize("name", OBSERVED)
def test_zero_task_vectors_stay_zero(name: str) -> None:
    nothing = [torch.zeros(ROWS, COLUMNS)] * N
    assert not total(prepared(name, nothing, OBSERVED[name](N))).any()


@pytest.mark.parametrize("name", OBSERVED)
def test_what_was_not_observed_of_all_experts_is_averaged(name: str) -> None:
    known = OBSERVED[name](N)
    gone = {kind: [None, *several[1:]] for kind, several in known.items()}
    wanted = total(vectors()) / (1 if name == "cat" else N)
    close(total(prepared(name, vectors(), gone)), wanted)
    close(total(prepared(name, vectors(), {})), wanted)


@pytest.mark.parametrize("name", OBSERVED)
def test_influence_of_none_is_the_base(name: str) -> None:
    found = prepared(name, vectors(), OBSERVED[name](N), influence=0.0)
    if name != "cat":
        assert not total(found).any()


def test_methods_with_data_say_so() -> None:
    for name in OBSERVED:
        kind: type[Method] = method(name)
        assert kind.observations
        assert kind.parameters()["influence"].prepares
