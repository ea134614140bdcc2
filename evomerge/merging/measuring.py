"""The statistics pass: before any candidate, every tensor is measured, and prepared if need be."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from evomerge.errors import CheckpointError, Fault
from evomerge.merging.sources import Sources
from evomerge.statistics.collect import measure

__all__ = ["measure_models"]


def measure_models(
    sources: Sources, wanted: Collection[str], progress: Callable[[int, int], None]
) -> None:
    """Measure, and prepare, what candidates ask for: all processes find it in the cache on disk.

    Tensors stream through, and nothing stays in memory: without a cache this is work for nothing.

    Args:
        sources: Opened models.
        wanted: Names of statistics (``Recipe.statistics``).
        progress: Called after each tensor with elements done and elements in all.

    Raises:
        CheckpointError: Some model holds NaN or infinity; one line per tensor, naming its file.
            All that is not finite is found, but nothing more measured, from the first one on.
    """
    sizes = {name: math.prod(sources.anchor.shape(name)) for name in sources.names}
    faults: list[Fault] = []
    done = 0
    for name, size in sizes.items():
        faults += sources.non_finite(name)
        if not faults:
            measure(sources.statistics(name), wanted)
            sources.prepare(name, wanted)
        sources.forget(name)
        done += size
        progress(done, sum(sizes.values()))
    if faults:
        raise CheckpointError(*faults)
