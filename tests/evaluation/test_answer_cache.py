"""Caches of answers that grow hold what a cache of transformers holds after the same calls."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from evomerge.evaluation.answer_cache import RoomyLayer, closed_up, keep_rows, make_room

STEPS = 12


def states(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 2, length, 4), torch.randn(rows, 2, length, 4)


def filled() -> tuple[DynamicCache, DynamicCache]:
    """The same keys and values of five sequences, with and without room."""
    plain, roomy = DynamicCache(), DynamicCache()
    for layer in range(2):
        keys, values = states(5, 3)
        for cache in (plain, roomy):
            cache.update(keys, values, layer)
    make_room(roomy)
    return plain, roomy


@pytest.mark.parametrize("seed", range(5))
def test_tokens_come_and_rows_leave_as_in_a_cache_of_transformers(seed, monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.answer_cache._ROOM", 3)
    torch.manual_seed(seed)
    draw, n = random.Random(seed), 5
    plain, roomy = filled()
    assert all(isinstance(layer, RoomyLayer) for layer in roomy.layers)
    for _ in range(STEPS):
        for layer in range(2):
            new = states(n, 1)
            expected, found = plain.update(*new, layer), roomy.update(*new, layer)
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        assert roomy.get_seq_length() == plain.get_seq_length()
        assert roomy.get_mask_sizes(1, 0) == plain.get_mask_sizes(1, 0)
        n = draw.randint(max(1, n - 1), n)
        rows = closed_up(sorted(draw.sample(range(len(plain.layers[0].keys)), n)))
        plain.batch_select_indices(torch.tensor(rows))
        keep_rows(roomy, rows, torch.device("cpu"))
        for a, b in zip(plain.layers, roomy.layers, strict=True):
            assert torch.equal(a.keys, b.keys)
            assert torch.equal(a.values, b.values)


def test_nothing_is_copied_when_a_token_comes():
    _, roomy = filled()
    before = roomy.layers[0].keys.data_ptr()
    roomy.update(*states(5, 1), 0)
    assert roomy.layers[0].keys.data_ptr() == before


def test_a_copy_of_a_prefix_is_not_written_to():
    plain, roomy = filled()
    kept = plain.layers[0].keys.clone()
    roomy.update(*states(5, 1), 0)
    keep_rows(roomy, [4, 1], torch.device("cpu"))
    assert torch.equal(plain.layers[0].keys, kept)


@given(st.sets(st.integers(0, 20), min_size=1))
def test_of_the_rows_that_go_on_only_those_beyond_their_number_move(going):
    rows = closed_up(sorted(going))
    assert sorted(rows) == sorted(going)
    assert all(row == place for place, row in enumerate(rows) if row < len(rows))
