"""The seam between a search and what it may vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from optuna import Trial
from optuna.distributions import BaseDistribution

from evomerge.models.reference import ModelRef
from evomerge.recipe.recipe import Dtype, Recipe

__all__ = ["GeneInfo", "ModelSet", "Params", "SearchSpace"]

Params = Mapping[str, float | int | str]


@dataclass(frozen=True)
class ModelSet:
    """The models a space mixes.

    Attributes:
        base: Model reference of the ancestor.
        experts: Model, adapter or delta by expert name, in recipe order.
        n_layers: Decoder layers of each.
        dtype: Dtype of the candidates; ``None`` takes the base's.
        seed: Seed of the candidates' random masks.
    """

    base: str
    experts: Mapping[str, ModelRef]
    n_layers: int
    dtype: Dtype | None = None
    seed: int = 0


@dataclass(frozen=True)
class GeneInfo:
    """One gene, described for people.

    Attributes:
        name: Parameter name in the study.
        range: Its values, e.g. ``0 to 1`` or ``linear | ties``.
        initial: The neutral value.
        meaning: What it does.
    """

    name: str
    range: str
    initial: float | int | str
    meaning: str


class SearchSpace(Protocol):
    """What may vary, and how a trial's params become a recipe.

    Pure: no models are read. ``recipe`` is total on params that ``suggest`` can produce, and
    different active params give different recipes.
    """

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Every gene in a fixed order, conditional ones included."""

    @property
    def defaults(self) -> Params:
        """A neutral value for every gene."""

    @property
    def statistics(self) -> tuple[str, ...]:
        """Name the statistics that its recipes may ask for (``Recipe.statistics``), sorted."""

    def suggest(self, trial: Trial) -> Params:
        """Draw the active genes of one trial."""

    def recipe(self, params: Params) -> Recipe:
        """Decode params; inactive genes may be absent."""

    def params(self, recipe: Recipe) -> Params | None:
        """Find params that decode to an equivalent recipe, or ``None`` if there are none."""

    def describe(self) -> list[GeneInfo]:
        """List the genes for people."""
