"""Mixtures of shared tokens: plain numpy, step by step, says the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from evomerge.transplants import neighbours, pursuit
from evomerge.transplants.mix import Mix, mixed_rows
from evomerge.transplants.neighbours import interpolated
from evomerge.transplants.pursuit import pursued
from tests.transplants.formulas import Array, nearest, orthogonal_pursuit

METHODS = {"omp": pursued, "common_interpolation": interpolated}
FORMULAS: dict[str, Callable[[Array, Array, int], Array]] = {
    "omp": orthogonal_pursuit,
    "common_interpolation": nearest,
}


def silent(n: int) -> None:
    """Progress."""


def dense(mix: Mix, n_atoms: int) -> Array:
    """Coefficients of all atoms."""
    out = torch.zeros(len(mix.chosen), n_atoms)
    return out.scatter_add_(1, mix.chosen, mix.coefficients).double().numpy()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("block_bytes", [64 << 20, 300])
def test_a_mixture_is_that_of_plain_numpy(
    method: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pursuit, neighbours):
        monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(0)
    atoms, targets = rng.normal(size=(40, 12)), rng.normal(size=(9, 12))
    counted: list[int] = []
    mix = METHODS[method](torch.tensor(targets), torch.tensor(atoms), 5, counted.append)
    expected = [FORMULAS[method](target, atoms, 5) for target in targets]
    np.testing.assert_allclose(dense(mix, 40), expected, atol=2e-5)
    assert sum(counted) == 9
    own = torch.tensor(rng.normal(size=(40, 7)))
    np.testing.assert_allclose(mixed_rows(mix, own), np.array(expected) @ own.numpy(), atol=2e-4)


def test_a_pursuit_stops_when_nothing_is_left() -> None:
    atoms = torch.eye(4)[:3].repeat(2, 1)  # every atom twice
    targets = torch.stack([torch.zeros(4), 2 * atoms[1], atoms[0] - 3 * atoms[2], torch.eye(4)[3]])
    mix = pursued(targets, atoms, 6, silent)
    found = mixed_rows(mix, atoms)
    assert torch.equal(found[:3], targets[:3])
    assert not found[3].any()  # nothing can be made of what is orthogonal to all
    assert mix.coefficients.count_nonzero(dim=1).tolist() == [0, 1, 2, 0]


def test_more_atoms_than_dimensions_are_of_no_use() -> None:
    torch.manual_seed(0)
    atoms, targets = torch.randn(30, 4), torch.randn(5, 4)
    mix = pursued(targets, atoms, 20, silent)
    assert torch.allclose(mixed_rows(mix, atoms), targets, atol=1e-4)
    assert mix.coefficients.isfinite().all()
    assert int(mix.coefficients.count_nonzero(dim=1).max()) <= 4


def test_a_token_among_its_neighbours_is_itself() -> None:
    atoms = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
    mix = interpolated(atoms[1:2].bfloat16(), atoms, 2, silent)
    assert torch.equal(mixed_rows(mix, atoms), atoms[1:2])
