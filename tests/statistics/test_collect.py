from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.errors import CheckpointError
from evomerge.statistics.cache import Origin, StatisticsCache
from evomerge.statistics.collect import STATISTICS, collect, whole_model
from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.tensor import TensorStatistics
from tests.statistics.sets import model_set

SHAPES = {"a": (40, 30), "b": (50,), "c": (8, 8)}
MODELS = {name: model_set(i, shape=shape) for i, (name, shape) in enumerate(SHAPES.items())}


def test_what_was_collected_is_not_read_again() -> None:
    readable = True

    def source(tensor: torch.Tensor) -> object:
        def read() -> torch.Tensor:
            assert readable, "read again"
            return tensor

        return read

    tensors = {
        name: TensorStatistics(source(m.base), [source(e) for e in m.experts])
        for name, m in MODELS.items()
    }
    collect(tensors, STATISTICS)
    readable = False
    for tensor in tensors.values():
        for measure in STATISTICS.values():
            measure(tensor)
    with pytest.raises(AssertionError, match="read again"):
        tensors["a"].activity(0.1)


def test_progress_counts_tensors() -> None:
    seen: list[tuple[int, int]] = []
    collect(
        {name: m.statistics for name, m in MODELS.items()},
        ["magnitudes", "activity"],  # the second has a parameter and waits for its first use
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cached", [False, True])
def test_nan_and_infinity_are_refused_by_tensor_and_file(
    tmp_path: Path, dtype: torch.dtype, cached: bool
) -> None:
    base, first, second = (torch.ones(300_000, dtype=dtype) for _ in range(3))
    second[299_999] = float("nan")
    second[7] = float("-inf")
    files = [tmp_path / f"{name}.safetensors" for name in ("base", "one", "two")]
    for file in files:
        file.touch()
    tensors = {
        "good": MODELS["a"].statistics,
        "model.norm": TensorStatistics(
            base,
            [first, second],
            origins=[Origin((file,), "model.norm") for file in files],
            cache=StatisticsCache(tmp_path / "cache") if cached else None,
        ),
    }
    for _ in range(2):
        with pytest.raises(CheckpointError) as caught:
            collect(tensors, ["magnitudes"])
        message = str(caught.value)
        assert "2 NaN or infinite out of 300000" in message
        assert "model.norm" in message
        assert str(files[2]) in message
        assert str(files[1]) not in message


def test_large_but_finite_numbers_are_accepted() -> None:
    huge = torch.full((1000,), torch.finfo(torch.float32).max)  # their sum is infinite
    collect({"t": TensorStatistics(None, [huge])}, [])


def test_global_scope_counts_over_all_tensors() -> None:
    tensors: dict[str, TensorStatistics] = {}
    magnitudes = whole_model(tensors.values)
    for name, m in MODELS.items():
        tensors[name] = TensorStatistics(m.base, m.experts, model_magnitudes=magnitudes)
    for i in range(3):
        flat = np.concatenate([m.task_vectors[i].reshape(-1) for m in MODELS.values()])
        expected = MagnitudeHistogram.of(flat)
        found = tensors["b"].model_magnitudes(i)
        assert np.array_equal(found.buckets, expected.buckets)
        assert np.array_equal(found.counts, expected.counts)
        assert tensors["c"].model_magnitudes(i) is found  # added up once
