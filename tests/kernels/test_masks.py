from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.kernels.eager import _hash24
from evomerge.kernels.masks import hash24, keep_threshold

KEYS = st.integers(0, 2**63 - 1)


@given(key=KEYS, start=st.integers(0, 2**40), n=st.integers(1, 300))
def test_torch_and_numpy_hash_alike_even_past_32_bit_indices(key: int, start: int, n: int) -> None:
    ours = hash24(key, np.arange(start, start + n, dtype=np.uint64))
    theirs = _hash24(key, start, torch.empty(n)).numpy()
    assert np.array_equal(ours.astype(np.int64), theirs)


def test_masks_keep_the_share_asked_for_and_are_independent_between_keys() -> None:
    index = np.arange(200_000, dtype=np.uint64)
    masks = np.stack([hash24(key, index) < keep_threshold(0.3) for key in (1, 2, 3 << 40)])
    assert np.allclose(masks.mean(axis=1), 0.3, atol=0.005)
    correlation = np.corrcoef(masks.astype(float))
    assert np.abs(correlation - np.eye(3)).max() < 0.01


@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_keys_that_differ_in_one_bit_give_independent_masks(keep: float) -> None:
    index, key = np.arange(100_000, dtype=np.uint64), 0x0123_4567_89AB_CDEF
    for bit in range(64):
        one, other = (hash24(k, index) < keep_threshold(keep) for k in (key, key ^ (1 << bit)))
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03, bit


def test_neighbouring_elements_are_independent() -> None:
    uniform = hash24(12345, np.arange(200_000, dtype=np.uint64)) / 2.0**24
    for lag in (1, 2, 4, 64, 1024):
        assert abs(np.corrcoef(uniform[:-lag], uniform[lag:])[0, 1]) < 0.01


@given(key=KEYS, low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_smaller_keep_probability_keeps_a_subset(key: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    values = hash24(key, np.arange(500, dtype=np.uint64))
    fewer, more = values < keep_threshold(low), values < keep_threshold(high)
    assert not np.any(fewer & ~more)


def test_keeping_all_or_nothing_is_exact() -> None:
    values = hash24(7, np.arange(10_000, dtype=np.uint64))
    assert np.all(values < keep_threshold(1.0))
    assert not np.any(values < keep_threshold(0.0))
