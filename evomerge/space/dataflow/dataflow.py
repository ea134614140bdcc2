"""The data-flow space: a path through layers of unchanged models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optuna import Trial
from optuna.distributions import BaseDistribution

from evomerge.errors import Fault, SpaceError
from evomerge.recipe.path import BASE, Hop
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.recipe.rules import copy_rule
from evomerge.space.baselines import single_model_rules
from evomerge.space.dataflow.checks import path_faults
from evomerge.space.dataflow.genes import PathGenes
from evomerge.space.dataflow.spec import PathSpec
from evomerge.space.protocol import GeneInfo, ModelSet, Params

__all__ = ["DataflowSpace", "dataflow_faults"]


class DataflowSpace:
    """Decodes genes to a path; what is outside the layers comes from its owner.

    Implements ``SearchSpace``. Different active params give different recipes except where the
    encoding says otherwise.

    Args:
        spec: What varies.
        models: Whose layers are chained.

    Raises:
        SpaceError: Every fault of the spec.
    """

    def __init__(self, spec: PathSpec, models: ModelSet) -> None:
        if faults := dataflow_faults(spec, models):
            raise SpaceError(*faults)
        self._models = models
        self._path = PathGenes(spec, tuple(models.experts), models.n_layers)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See ``SearchSpace``."""
        return {name: gene.distribution for name, gene in self._path.genes.items()}

    @property
    def defaults(self) -> Params:
        """See ``SearchSpace``; together they make the initial path."""
        return {name: gene.initial for name, gene in self._path.genes.items()}

    @property
    def depths(self) -> Mapping[str, int]:
        """See ``SearchSpace``."""
        return self._path.depths()

    @property
    def statistics(self) -> tuple[str, ...]:
        """See ``SearchSpace``."""
        recipes = [self._recipe(owner, ()) for owner in self._path.owners]
        return tuple(sorted({name for recipe in recipes for name in recipe.statistics}))

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``."""
        return self._path.draw(trial)

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        return self._recipe(*self._path.hops(params.__getitem__))

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``; single models without a path are the path through their layers."""
        if (recipe.base, dict(recipe.experts)) != (self._models.base, dict(self._models.experts)):
            return None
        for owner in self._path.owners:
            if len(recipe.rules) == 1 and recipe.rules[0] in self._owner_rules(owner):
                return self._path.values(owner, recipe.path)
        return None

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        return self._path.describe()

    def _recipe(self, owner: str, path: tuple[Hop, ...]) -> Recipe:
        rule = copy_rule(owner, self._models.experts)
        return replace(self._models.recipe((rule,)), path=path)

    def _owner_rules(self, owner: str) -> list[Rule]:
        """List rules that take everything outside the layers from one model, exact copy first."""
        return list(single_model_rules(owner, tuple(self._models.experts)))


def dataflow_faults(spec: PathSpec, models: ModelSet) -> list[Fault]:
    """List every fault of a data-flow space; empty if all is well."""
    default, known = tuple(models.experts), (*models.experts, BASE)
    return path_faults(spec, known=known, default=default, n_layers=models.n_layers)
