"""Compares the experts of an experiment by their task vectors, in one pass over the tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evomerge.analysis.interference import TOP, Comparison, Sums, compare
from evomerge.errors import CheckpointError, Fault
from evomerge.schema import parse
from evomerge.study.folder import write_atomically
from evomerge.study.json_files import read_json_or_warn

if TYPE_CHECKING:
    from evomerge.merging.sources import Sources
    from evomerge.statistics.tensor import TensorStatistics

__all__ = ["compare_experts", "read_comparison", "write_comparison"]


def compare_experts(
    sources: Sources, progress: Callable[[int, int], None] = lambda done, total: None
) -> Comparison:
    """Measure how the experts' task vectors relate, layer by layer and overall.

    Tensors stream through: memory holds the tiles of one, and a few sums per layer. What is
    measured is cached on disk, so that a second call reads no tensor.

    Args:
        sources: Opened models with a base.
        progress: Called after each tensor with elements done and elements in all.

    Raises:
        CheckpointError: Some model holds NaN or infinity; one line per tensor, naming its file.
    """
    sizes = {name: math.prod(sources.anchor.shape(name)) for name in sources.names}
    parts: dict[str, Sums] = {}
    faults: list[Fault] = []
    done = 0
    for name in sorted(sizes, key=lambda name: _order(sources, name)):
        faults += sources.non_finite(name)
        if not faults:
            part, sums = _part(sources, name), _sums(sources.statistics(name))
            parts[part] = parts[part] + sums if part in parts else sums
        sources.forget(name)
        done += sizes[name]
        progress(done, sum(sizes.values()))
    if faults:
        raise CheckpointError(*faults)
    return compare(tuple(sources.experts), list(parts.items()))


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write a comparison as JSON."""
    content = {"schema_version": 1, "comparison": asdict(comparison)}
    write_atomically(path, json.dumps(content, indent=1))


def read_comparison(path: Path) -> Comparison | None:
    """Read what ``write_comparison`` wrote; ``None`` if nothing was, or the file is damaged."""
    return read_json_or_warn(
        path,
        lambda content: parse(Comparison, content["comparison"]),
        "the report does without it; 'evomerge resume DIR' compares the experts again",
    )


def _sums(tensor: TensorStatistics) -> Sums:
    histograms = [tensor.magnitudes(i) for i in range(tensor.n_experts)]
    return Sums(
        base=tensor.model_moments(0).square_sum,
        gram=tensor.task_gram,
        top=np.array([h.kept_l2(h.threshold(TOP)) for h in histograms]),
        signs=tensor.signs(1.0),
        top_signs=tensor.signs(TOP),
    )


def _part(sources: Sources, name: str) -> str:
    role = sources.architecture.roles[name]
    return f"layer {role.layer}" if role.in_layer else role.kind


def _order(sources: Sources, name: str) -> tuple[bool, int]:
    """Layers first."""
    role = sources.architecture.roles[name]
    return not role.in_layer, role.layer
