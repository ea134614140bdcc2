"""Exact ranks for comparisons with formulas."""

from __future__ import annotations

import pytest

from evomerge.methods import sparsify


@pytest.fixture(autouse=True)
def _exact_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read ranks off all knots, as many as test tensors have columns; see test_ranks.py."""
    monkeypatch.setattr(sparsify, "_EVERY_KNOT", 1)
