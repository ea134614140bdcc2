from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from evomerge.statistics.tensor import TensorStatistics
from tests.statistics.sets import model_set

PEAK = """
import resource, torch
from evomerge.statistics.collect import STATISTICS
from evomerge.statistics.tensor import TensorStatistics

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

n = 12_000_000
base = torch.zeros((3000, 4000), dtype=torch.bfloat16)
experts = [base + 1, base + 2]
warm = TensorStatistics(base[:2], [e[:2] for e in experts])
for measure in STATISTICS.values():
    measure(warm)
before = peak()
statistics = TensorStatistics(base, experts)
for measure in STATISTICS.values():
    measure(statistics)
statistics.activity(0.1), statistics.scores(0.01), statistics.masked_l1(0, 1, 0.5)
print((peak() - before) / (4 * n))
"""


def test_all_statistics_together_need_less_than_two_float32_copies_of_the_tensor() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(done.stdout) < 2.0


def test_tensors_of_any_layout_count_in_row_major_order() -> None:
    models = model_set(0, shape=(30, 40), k=1)
    turned = TensorStatistics(models.base.T, [models.experts[0].T])
    straight = TensorStatistics(models.base.T.contiguous(), [models.experts[0].T.contiguous()])
    assert turned.rows == 40
    assert np.array_equal(turned.row_knots(0), straight.row_knots(0))
    assert turned.masked_l1(0, 5, 0.5) == straight.masked_l1(0, 5, 0.5)


def test_no_tensor_is_written_into() -> None:
    models = model_set(0, shape=(100, 10))
    before = [tensor.clone() for tensor in (models.base, *models.experts)]
    statistics = models.statistics
    statistics.moments(0), statistics.model_moments(0), statistics.row_knots(0)
    TensorStatistics(None, models.experts).row_knots(0)
    TensorStatistics(None, models.experts).moments(0)
    after = (models.base, *models.experts)
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_a_parameter_asked_for_last_is_kept_and_earlier_ones_are_measured_again() -> None:
    statistics = model_set(0, shape=(500,)).statistics
    first = statistics.activity(1e-3)
    assert statistics.activity(1e-3) is first
    statistics.activity(1e-2)
    assert np.array_equal(statistics.activity(1e-3), first)
