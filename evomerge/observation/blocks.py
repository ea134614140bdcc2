"""As many tensors at once as memory allows: one pass over the examples for each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch

from evomerge.models.writer import TensorForm
from evomerge.observation.kinds import ObservationKind
from evomerge.observation.observer import Observer

__all__ = ["BLOCK_BYTES", "blocks", "in_blocks", "largest_block"]

BLOCK_BYTES = 2 << 30
"""What the sums of one pass may take, unless one tensor alone takes more."""


def blocks(forms: Mapping[str, TensorForm], n_bytes: int) -> Iterator[tuple[str, ...]]:
    """Cut tensors into blocks, in sorted order of names.

    Args:
        forms: What is observed.
        n_bytes: Most that a block takes; a tensor that takes more is alone.
    """
    block: list[str] = []
    for name in sorted(forms):
        if block and sum(forms[n].nbytes for n in (*block, name)) > n_bytes:
            yield tuple(block)
            block = []
        block.append(name)
    if block:
        yield tuple(block)


def largest_block(forms: Mapping[str, TensorForm], n_bytes: int = BLOCK_BYTES) -> int:
    """Reckon the bytes of the largest block."""
    sizes = (sum(forms[name].nbytes for name in block) for block in blocks(forms, n_bytes))
    return max(sizes, default=0)


def in_blocks(
    observer: Callable[[], Observer],
    kind: ObservationKind,
    forms: Mapping[str, TensorForm],
    *,
    n_bytes: int = BLOCK_BYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Callable[[str], torch.Tensor]:
    """Observe a model block by block, as tensors are asked for in sorted order of names.

    Args:
        observer: Returns the model and its examples; called for each block.
        kind: What is observed.
        forms: All that will be asked for (``ObservationKind.forms``).
        n_bytes: See ``blocks``.
        progress: Called after each pass with (passes done, passes in all).

    Returns:
        From a name to what was observed. One block is held.
    """
    cut = list(blocks(forms, n_bytes))
    held: dict[str, torch.Tensor] = {}

    def tensor_of(name: str) -> torch.Tensor:
        if name not in held:
            position = next(i for i, block in enumerate(cut) if name in block)
            held.clear()  # before the next ones take memory
            held.update(kind.observe(observer(), cut[position]))
            progress(position + 1, len(cut))
        return held[name]

    return tensor_of
