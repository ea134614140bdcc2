"""Ranks read off the few knots in use, against ranks by sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from evomerge.kernels.job import MergeJob
from evomerge.kernels.plan import RankedMask, TensorPlan
from evomerge.kernels.reference import _rank
from evomerge.kernels.structure import is_supported
from evomerge.methods import sparsify
from tests.methods.running import context


@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_ranks_in_use_are_close_and_run_compiled(
    tails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of the fixture of this folder
    random = np.random.default_rng(0)
    shape = (4, 2048)
    values = random.normal(size=shape) if tails == "normal" else random.standard_t(3, size=shape)
    expert = torch.from_numpy(values.astype(np.float32))
    (mask,) = sparsify.ranked_masks(context(torch.zeros(shape), [expert]), (0.5,), (0.15,), "inv_p")
    assert isinstance(mask, RankedMask)
    assert is_supported(MergeJob(TensorPlan((1.0,), sparse=(mask,)), None, [expert], expert))
    for row, knots in zip(np.abs(expert.numpy()), mask.knots.values, strict=True):
        error = np.abs(_rank(row, knots) - row.argsort().argsort() / (row.size - 1))
        assert error.mean() < 0.02
        assert error.max() < 0.11


@pytest.mark.parametrize("zeros", [0.0, 0.3, 0.6, 0.97, 1.0])
def test_ties_are_kept_with_the_probability_of_the_middle_of_their_ranks(
    zeros: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of bfloat16 models have few values, and many are zero."""
    monkeypatch.undo()
    random = np.random.default_rng(1)
    values = np.ceil(np.abs(random.standard_t(3, size=(8, 2048)) * 4)) / 256
    values[random.random(values.shape) < zeros] = 0.0
    expert = torch.from_numpy(values.astype(np.float32))
    zero = torch.zeros_like(expert)
    (mask,) = sparsify.ranked_masks(context(zero, [expert]), (0.5,), (0.5,), "none")
    assert isinstance(mask, RankedMask)
    for row, knots in zip(expert.numpy(), mask.knots.values, strict=True):
        rank = _rank(row, knots)
        exact = (rankdata(row) - 1) / (row.size - 1)
        assert np.abs(rank - exact).max() < 1.5 / 8
        assert abs(rank.mean() - 0.5) < 1 / 16  # the mean probability is the density
