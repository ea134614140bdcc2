"""Where workers have room: machines with cores and GPUs, and what a worker takes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Node", "n_slots"]

_ROUNDING = 1e-9  # three times a third is a GPU


@dataclass(frozen=True)
class Node:
    """A machine of a cluster that is alive.

    Attributes:
        id: Ray's.
        name: Its address and host, for people.
        n_cores: That Ray gives away.
        n_gpus: That Ray gives away.
    """

    id: str
    name: str
    n_cores: float
    n_gpus: float


def n_slots(nodes: Iterable[Node], gpus_per_worker: float) -> int:
    """Count the workers that machines have room for; a share of a GPU is a share of one GPU.

    Several GPUs of a worker are on one machine.
    """
    if not gpus_per_worker:
        return sum(int(node.n_cores) for node in nodes)
    per_gpu = int(1 / gpus_per_worker + _ROUNDING) if gpus_per_worker < 1 else 1 / gpus_per_worker
    return sum(int(min(node.n_cores, int(node.n_gpus) * per_gpu + _ROUNDING)) for node in nodes)
