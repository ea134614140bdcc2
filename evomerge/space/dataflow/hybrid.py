"""The hybrid space: parameters of a merge, and a path that may pass through the merged layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optuna import Trial
from optuna.distributions import BaseDistribution

from evomerge.errors import Fault, SpaceError
from evomerge.recipe.path import BASE, MERGED
from evomerge.recipe.recipe import Recipe
from evomerge.space.checks import spec_faults
from evomerge.space.dataflow.checks import path_faults
from evomerge.space.dataflow.genes import PathGenes
from evomerge.space.dataflow.spec import HybridSpec
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import GeneInfo, ModelSet, Params

__all__ = ["HybridSpace", "hybrid_faults"]

_PREFIX = "path."


class HybridSpace:
    """Decodes genes to the rules of a merge and a path; path genes are called ``path.NAME``.

    The merge owns the ends of every path. Implements ``SearchSpace``.

    Args:
        spec: What varies.
        models: What is mixed and chained.

    Raises:
        SpaceError: Every fault of both parts.
    """

    def __init__(self, spec: HybridSpec, models: ModelSet) -> None:
        if faults := hybrid_faults(spec, models):
            raise SpaceError(*faults)
        path = replace(spec.path, owner=(MERGED,))
        self._merge = ParameterSpace(spec.merge, models)
        self._path = PathGenes(path, _sources(models), models.n_layers)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See ``SearchSpace``."""
        genes = self._path.genes.items()
        own = {f"{_PREFIX}{name}": gene.distribution for name, gene in genes}
        return {**self._merge.distributions, **own}

    @property
    def defaults(self) -> Params:
        """See ``SearchSpace``."""
        own = {f"{_PREFIX}{name}": gene.initial for name, gene in self._path.genes.items()}
        return {**self._merge.defaults, **own}

    @property
    def depths(self) -> Mapping[str, int]:
        """See ``SearchSpace``."""
        return {**self._merge.depths, **self._path.depths(_PREFIX)}

    @property
    def statistics(self) -> tuple[str, ...]:
        """See ``SearchSpace``; those of the merge."""
        return self._merge.statistics

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``."""
        return {**self._merge.suggest(trial), **self._path.draw(trial, _PREFIX)}

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        _, hops = self._path.hops(lambda name: params[f"{_PREFIX}{name}"])
        return replace(self._merge.recipe(params), path=hops)

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``; a merge without a path is the path through its layers."""
        merge = self._merge.params(replace(recipe, path=()))
        path = self._path.values(MERGED, recipe.path)
        if merge is None or path is None:
            return None
        return {**merge, **{f"{_PREFIX}{name}": value for name, value in path.items()}}

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        return [*self._merge.describe(), *self._path.describe(_PREFIX)]


def _sources(models: ModelSet) -> tuple[str, ...]:
    return (MERGED, *models.experts)


def hybrid_faults(spec: HybridSpec, models: ModelSet) -> list[Fault]:
    """List every fault of both parts of a hybrid space; empty if all is well."""
    path = replace(spec.path, owner=spec.path.owner or (MERGED,))
    default = _sources(models)
    known = (*default, BASE)
    faults = path_faults(path, known=known, default=default, n_layers=models.n_layers)
    if path.owner != (MERGED,):
        owners = ", ".join(path.owner)
        text = f"expected 'merged', which owns the ends of every path here, got {owners}"
        faults.append(Fault(("owner",), text))
    of_merge = [fault.under("merge") for fault in spec_faults(spec.merge, models)]
    return of_merge + [fault.under("path") for fault in faults]
