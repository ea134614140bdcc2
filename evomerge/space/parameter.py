"""The parameter space: which coefficients, densities and methods, per depth group and module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from evomerge.errors import SpaceError
from evomerge.recipe.recipe import Recipe
from evomerge.space.checks import spec_faults
from evomerge.space.decoding import decode_rules
from evomerge.space.distributions import in_range, range_text, suggest
from evomerge.space.genes import Genes
from evomerge.space.lookup import find_params, makes_the_same
from evomerge.space.protocol import GeneInfo, ModelSet, Params
from evomerge.space.spec import ParameterSpec
from evomerge.space.tensor_groups import with_groups

__all__ = ["ParameterSpace"]


class ParameterSpace:
    """Decodes genes to one rule per cell; implements ``SearchSpace``.

    Args:
        spec: What varies.
        models: What is mixed.

    Raises:
        SpaceError: Every fault of the spec.
    """

    def __init__(self, spec: ParameterSpec, models: ModelSet) -> None:
        if faults := spec_faults(spec, models):
            raise SpaceError(*faults)
        self._spec, self._models = with_groups(spec, models), models
        self._genes = Genes(self._spec, models)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See ``SearchSpace``."""
        return self._genes.distributions

    @property
    def defaults(self) -> Params:
        """See ``SearchSpace``."""
        return self._genes.defaults

    @property
    def depths(self) -> Mapping[str, int]:
        """See ``SearchSpace``."""
        return self._genes.depths

    @property
    def statistics(self) -> tuple[str, ...]:
        """See ``SearchSpace``."""
        found: set[str] = set()
        for params in self._extremes():
            found.update(self.recipe(params).statistics)
        return tuple(sorted(found))

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``."""
        params: dict[str, float | int | str] = {}
        for name, distribution in self.distributions.items():
            if self._genes.is_active(name, params):
                params[name] = suggest(trial, name, distribution)
        return params

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        return self._models.recipe(decode_rules(params, self._spec, self._genes))

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``; compares method and parameter values tensor by tensor."""
        if recipe.path or not self._models.are_mixed_by(recipe):
            return None
        found = find_params(recipe, self._spec, self._genes)
        if found is None or not in_range(found, self.distributions):
            return None
        return found if makes_the_same(self.recipe(found), recipe, self._models) else None

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        return [
            GeneInfo(name, range_text(d), self.defaults[name], self._genes.meaning(name))
            for name, d in self.distributions.items()
        ]

    def _extremes(self) -> Iterator[Params]:
        """Combine all choices, alike in all cells; numbers are at their low ends.

        Where a number decides what is asked of a tensor, as in SCE, its low end asks for most.
        """
        genes = self.distributions.items()
        lows = {n: d.low for n, d in genes if isinstance(d, FloatDistribution | IntDistribution)}
        named = {n: d.choices for n, d in genes if isinstance(d, CategoricalDistribution)}
        choices = {_parameter_of(name): values for name, values in named.items()}
        for values in product(*choices.values()):
            chosen: dict[str, Any] = dict(zip(choices, values, strict=True))
            yield {**lows, **{name: chosen[_parameter_of(name)] for name in named}}


def _parameter_of(gene: str) -> str:
    return gene.split(".", maxsplit=1)[0]
