"""Which items of a task make up a split: a fixed, seeded, nested choice."""

from __future__ import annotations

import numpy as np

from evomerge.evaluation.suite import SPLITS, Suite
from evomerge.seeds import seed_for

__all__ = ["select_items"]


def select_items(suite: Suite, task: str, split: str, n_items: int) -> list[int]:
    """Choose the rows of a dataset split that a task is scored on.

    Args:
        suite: Its ``splits``, ``limit`` and ``seed`` decide.
        task: lm-eval task name.
        split: One of ``suite.splits``.
        n_items: Rows of the dataset split: the named one, or the task's own for a fraction.

    Returns:
        Row numbers in the order of a seeded permutation: any first part is a random sample, and
        lies in every longer one. Fractions of one task never share a row. With a smaller limit the
        rows are a subset of those with a larger one.
    """
    share = suite.splits[split]
    if isinstance(share, str):
        order, start, stop = _permutation(suite.seed, task, share, n_items), 0, n_items
    else:
        order = _permutation(suite.seed, task, "", n_items)
        start, stop = _bounds(suite, split, n_items)
    chosen = order[start:stop][: suite.limit]
    return [int(row) for row in chosen]


def _permutation(seed: int, task: str, dataset_split: str, n_items: int) -> np.ndarray:
    generator = np.random.default_rng(seed_for(seed, "items", task, dataset_split))
    return generator.permutation(n_items)


def _bounds(suite: Suite, split: str, n_items: int) -> tuple[int, int]:
    """Where a fraction starts and stops in the permutation, fractions laid end to end."""
    before = 0.0
    for name in SPLITS[: SPLITS.index(split)]:
        share = suite.splits.get(name, "")
        before += 0.0 if isinstance(share, str) else share
    share = suite.splits[split]
    after = before if isinstance(share, str) else before + share
    return round(before * n_items), min(round(after * n_items), n_items)
