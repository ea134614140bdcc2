"""Missing tokens made of shared ones by mergekit-tokensurgeon and here.

Runs where ``mergekit`` can be imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch

from evomerge.transplants.mix import mixed_rows
from evomerge.transplants.tables import METHODS

pytest.importorskip("mergekit.tokensurgeon")
THEIRS = {"omp": "batch_omp", "common_interpolation": "common_interp_approximate"}


@pytest.mark.parametrize("k", [1, 8, 32])
@pytest.mark.parametrize("method", METHODS)
def test_rows_of_missing_tokens_are_the_same(method: Any, k: int) -> None:
    torch.manual_seed(0)
    atoms = torch.randn(400, 64) * torch.rand(400, 1)
    targets, own = torch.randn(30, 64), torch.randn(400, 48)
    module = import_module(f"mergekit.tokensurgeon.{method}")
    chosen, coefficients = getattr(module, THEIRS[method])(targets, atoms, k)
    theirs = (own[chosen] * coefficients[:, :, None]).sum(dim=1)
    mix = METHODS[method](targets, atoms, k, lambda n: None)
    assert torch.allclose(mixed_rows(mix, own), theirs, atol=1e-4)
