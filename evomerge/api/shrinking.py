"""A mixture of experts with fewer of them, as a folder."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evomerge.mixtures.fewer import FewerWritten

__all__ = ["fewer_experts"]


def fewer_experts(
    model: str,
    out: str | PathLike[str],
    *,
    experts: int,
    prompts: str | PathLike[str],
    limit: int | None = None,
    writing: Callable[[int, int], None] = lambda done, total: None,
) -> FewerWritten:
    """Merge the experts of a mixture that its routers use alike, without training.

    Args:
        model: ``zoo:NAME``, a folder, or a Hub id.
        out: Folder to write, as plain transformers loads it.
        experts: How many each layer shall have.
        prompts: File on which the routers are watched: text lines, or JSON lines with ``prompt``.
        limit: How many prompts are read, from the start; absent: 256.
        writing: Called with (tensors done, tensors in all).

    Returns:
        Which experts became one in which layer, and how many parameters are left.

    Raises:
        EvomergeError: The model is missing or no mixture that is known, there are no prompts or
            experts cannot be as many, or the folder cannot be written.
    """
    from evomerge.export.mixture import export_fewer
    from evomerge.merging.watched import N_PROMPTS
    from evomerge.mixtures.fewer import FewerExperts

    wanted = FewerExperts(
        model=model,
        prompts=fspath(prompts),
        experts=experts,
        limit=N_PROMPTS if limit is None else limit,
    )
    return export_fewer(wanted, Path(out), progress=writing)
