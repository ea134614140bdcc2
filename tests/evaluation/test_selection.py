"""Splits are disjoint, limits are nested, and neither depends on anything but names and seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluation import SPLITS, Suite
from evomerge.evaluation.selection import select_items

shares = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3).map(
    lambda parts: {
        split: part / max(1.0, sum(parts)) for split, part in zip(SPLITS, parts, strict=True)
    }
)
sizes = st.integers(1, 300)


@given(shares, sizes, st.integers(0, 9))
def test_fractions_share_no_row_and_have_their_size(splits, n_items, seed):
    suite = Suite("s", ("t",), splits=splits, seed=seed)
    parts = {split: select_items(suite, "t", split, n_items) for split in SPLITS}
    rows = [row for part in parts.values() for row in part]
    assert len(rows) == len(set(rows))
    assert set(rows) <= set(range(n_items))
    assert all(abs(len(parts[split]) - splits[split] * n_items) <= 1 for split in SPLITS)


@given(sizes)
def test_default_fractions_use_every_row(n_items):
    suite = Suite("s", ("t",))
    rows = [row for split in SPLITS for row in select_items(suite, "t", split, n_items)]
    assert sorted(rows) == list(range(n_items))


@given(sizes, st.integers(1, 100), st.integers(1, 100), st.sampled_from(["named", 0.7]))
def test_a_smaller_limit_selects_a_subset(n_items, one, other, share):
    def select(limit: int) -> list[int]:
        return select_items(
            Suite("s", ("t",), splits={"search": share}, limit=limit), "t", "search", n_items
        )

    small, large = select(min(one, other)), select(max(one, other))
    assert set(small) <= set(large)
    assert small == large[: len(small)]  # a first part
    assert len(small) <= min(one, other)


def test_the_choice_depends_on_seed_and_task_but_not_on_other_splits():
    def select(*, task: str = "t", **changes: object) -> list[int]:
        options = {"splits": {"search": 0.5, "test": 0.5}, "seed": 0} | changes
        return select_items(Suite("s", (task,), **options), task, "search", 100)

    assert select() == select(splits={"search": 0.5})
    assert select() != select(seed=1)
    assert select() != select(task="u")
