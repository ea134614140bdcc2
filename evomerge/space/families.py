"""Which genes do the same at different depths."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["families"]


def families(depths: Mapping[str, int]) -> dict[str, str]:
    """Name the family of every gene that sits at a depth.

    Genes of a family are called alike but for the number of their depth, such as
    ``coefficient.attention.0.math`` and ``coefficient.attention.1.math``.

    Args:
        depths: As ``SearchSpace.depths``.
    """
    return {gene: _without(str(depth), gene) for gene, depth in depths.items()}


def _without(depth: str, gene: str) -> str:
    parts = gene.split(".")
    parts.remove(depth)  # a module or expert of that name leaves the same parts
    return ".".join(parts)
