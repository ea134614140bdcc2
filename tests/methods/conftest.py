"""Exact ranks for comparisons with formulas."""

from __future__ import annotations

import pytest

from evomerge.statistics.tensor import TensorStatistics


@pytest.fixture(autouse=True)
def _exact_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read ranks off as many knots as test tensors have columns; see test_ranks.py."""
    monkeypatch.setattr(TensorStatistics, "rank_knots", TensorStatistics.row_knots)
