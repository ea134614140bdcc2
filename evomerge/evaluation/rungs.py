"""Tasks cut into rungs: parts of their items that are scored one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from evomerge.evaluation.harness import with_requests
from evomerge.evaluation.requests import PreparedTask

__all__ = ["cut_task"]


def cut_task(prepared: PreparedTask, shares: Sequence[float]) -> list[PreparedTask]:
    """Cut a task into what each rung adds to the ones before it.

    Args:
        prepared: The whole task; its requests are shared with the parts.
        shares: Ascending shares of the items at which rungs end; the last rung takes the rest.

    Returns:
        One task more than ``shares``; any of them may be without items.
    """
    n = len(prepared.order)
    ends = [0, *(math.ceil(share * n) for share in shares), n]
    return [_part(prepared, prepared.order[start:stop]) for start, stop in pairwise(ends)]


def _part(prepared: PreparedTask, order: tuple[int, ...]) -> PreparedTask:
    rows = set(order)
    items = tuple(item for item in prepared.items if item.row in rows)
    own = {id(request) for item in items for request in item.requests}
    task = with_requests(prepared.task, [r for r in prepared.task.instances if id(r) in own])
    return replace(prepared, task=task, items=items, order=order)
