"""The Optuna side of samplers that propose all genes at once."""

from __future__ import annotations

from collections.abc import Callable

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from evomerge.samplers.gene_space import GeneSpace, GeneValue
from evomerge.samplers.unit_cube import draw_uniform
from evomerge.seeds import seed_for

__all__ = ["AllGenes", "JointSampler", "Propose"]

Propose = Callable[[Study, FrozenTrial], dict[str, GeneValue]]


class AllGenes(BaseSampler):
    """A sampler that is asked for all genes that can vary, active or not; abstract.

    Args:
        space: The genes.
        seed: The study's seed.
    """

    def __init__(self, space: GeneSpace, *, seed: int) -> None:
        self._space, self._seed = space, seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all genes that can vary."""
        return dict(self._space.searched)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> GeneValue:
        """Draw a param that is no gene of the space uniformly."""
        seed = seed_for(self._seed, "uniform", trial.number, param_name)
        return draw_uniform({param_name: param_distribution}, seed)[param_name]


class JointSampler(AllGenes):
    """Suggests whatever a function of the store proposes.

    Args:
        space: The genes.
        propose: From the study and the trial that asks to a value for every gene of
            ``space.searched``, active or not. A function of the store, the seed and the trial's
            number.
        seed: The study's seed.
    """

    def __init__(self, space: GeneSpace, propose: Propose, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self._propose = propose

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, GeneValue]:
        """Return a value for every gene, active or not."""
        return self._propose(study, trial) if search_space else {}
