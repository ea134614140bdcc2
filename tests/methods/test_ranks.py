"""Ranks read off the few knots in use, against ranks by sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.kernels.job import Job
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
    assert is_supported(Job(TensorPlan((1.0,), sparse=(mask,)), None, [expert], expert))
    for row, knots in zip(np.abs(expert.numpy()), mask.knots.values, strict=True):
        error = np.abs(_rank(row, knots) - row.argsort().argsort() / (row.size - 1))
        assert error.mean() < 0.02
        assert error.max() < 0.12
