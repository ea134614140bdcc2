"""Slopes of an objective along what a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.methods.slopes import ParameterSlopes

__all__ = ["RecipeSlopes"]


@dataclass(frozen=True)
class RecipeSlopes:
    """How much an objective changes with the numbers of a recipe, per unit of each.

    Attributes:
        tensors: By tensor that the recipe merges, the slopes along the parameters of its rule, as
            far as they act through this tensor. Those that move masks have none.
        scales: Along the scale of every hop of the path; empty if the model's family has no scales
            or the recipe no path.
    """

    tensors: Mapping[str, ParameterSlopes]
    scales: tuple[float, ...] = ()
