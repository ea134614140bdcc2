"""A path as an ordinary checkpoint: each hop a layer of its own, scales folded into its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from evomerge.merging.sources import Sources
from evomerge.models.branches import branches_of
from evomerge.models.tiles import row_blocks
from evomerge.recipe.path import MERGED, Hop, cumulative_scales
from evomerge.recipe.recipe import Recipe

__all__ = ["Stored", "unrolled"]


@dataclass(frozen=True)
class Stored:
    """What one tensor of the written checkpoint is.

    Attributes:
        source: ``merged``, ``base`` or an expert's name.
        name: Tensor of that source.
        factor: See ``Branches.fold``.
        offset: See ``Branches.fold``.
    """

    source: str
    name: str
    factor: float = 1.0
    offset: float = 0.0

    def fold(self, tensor: torch.Tensor, out: torch.Tensor) -> None:
        """Compute the written tensor block by block: in float32, rounded once.

        Args:
            tensor: The source's.
            out: Of its shape; may be ``tensor`` itself.
        """
        if self.factor == 1:
            out.copy_(tensor)
            return
        for rows in row_blocks(out.shape):
            out[rows] = (tensor[rows].float() + self.offset) * self.factor - self.offset


def unrolled(recipe: Recipe, sources: Sources) -> dict[str, Stored]:
    """List the tensors of a recipe's checkpoint and what each of them is.

    Args:
        recipe: Its path, if any, has passed ``PathRules.check``.
        sources: The recipe's models.

    Returns:
        By name in the written checkpoint, sorted. Of tied tensors the first is there, as
        transformers does.
    """
    roles, names = sources.architecture.roles, sources.stored
    if not recipe.path:
        return {name: Stored(MERGED, name) for name in names}
    outside = {name: Stored(MERGED, name) for name in names if not roles[name].in_layer}
    of_layer: dict[int, list[str]] = {}
    for name in names:
        if roles[name].in_layer:
            of_layer.setdefault(roles[name].layer, []).append(name)
    return dict(sorted({**outside, **_hops(recipe.path, of_layer, sources)}.items()))


def _hops(
    path: Sequence[Hop], of_layer: Mapping[int, Sequence[str]], sources: Sources
) -> dict[str, Stored]:
    branches = branches_of(sources.anchor.config.get("model_type"))
    found = {}
    for t, (hop, scale) in enumerate(zip(path, cumulative_scales(path), strict=True)):
        for name in of_layer[hop.layer]:
            fold = (1.0, 0.0) if branches is None else branches.fold(name, scale)
            found[_moved(name, hop.layer, t)] = Stored(hop.source, name, *fold)
    return found


def _moved(name: str, layer: int, position: int) -> str:
    """Rename a layer's tensor; the first number in its name is the layer's."""
    return re.sub(rf"(?<![^.]){layer}(?![^.])", str(position), name, count=1)
