"""How many workers machines have room for."""

from __future__ import annotations

import pytest

from evomerge.execution.placement import Node, n_slots


@pytest.mark.parametrize(
    ("machines", "gpus_per_worker", "expected"),
    [
        ([(4, 0), (2, 0)], 0, 6),
        ([(4, 2), (2, 0)], 0, 6),
        ([(8, 2), (2, 0)], 1, 2),
        ([(8, 2)], 0.25, 8),
        ([(64, 4)], 0.4, 8),  # two fit on each GPU, though 4 / 0.4 is 10
        ([(3, 2)], 0.25, 3),  # a worker needs a core as well
        ([(64, 1)], 1 / 3, 3),
        ([(0, 0)], 0, 0),
        ([(8, 4)], 2, 2),
        ([(64, 8), (64, 3)], 4, 2),  # four of one machine
        ([(1, 8)], 4, 1),
    ],
)
def test_a_share_of_a_gpu_is_a_share_of_one_gpu(
    machines: list[tuple[int, int]], gpus_per_worker: float, expected: int
) -> None:
    nodes = [Node("id", "name", cores, gpus) for cores, gpus in machines]
    assert n_slots(nodes, gpus_per_worker) == expected
