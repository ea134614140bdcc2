"""The Optuna side of our own samplers: all genes at once, from a function of the store."""

from __future__ import annotations

from collections.abc import Callable

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from evomerge.samplers.gene_space import Gene, GeneSpace
from evomerge.samplers.unit_cube import draw_uniform
from evomerge.seeds import seed_for

__all__ = ["JointSampler", "Propose"]

Propose = Callable[[Study, FrozenTrial], dict[str, Gene]]


class JointSampler(BaseSampler):
    """Suggests whatever a function proposes for all genes that can vary.

    Args:
        space: The genes.
        propose: From the study and the trial that asks to a value for every gene of
            ``space.searched``, active or not. A function of the store, the seed and the trial's
            number.
        seed: The study's seed.
    """

    def __init__(self, space: GeneSpace, propose: Propose, *, seed: int) -> None:
        self._space = space
        self._propose = propose
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all genes that can vary."""
        return dict(self._space.searched)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Gene]:
        """Return a value for every gene, active or not."""
        return self._propose(study, trial) if search_space else {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Gene:
        """Draw a param that is no gene of the space uniformly."""
        seed = seed_for(self._seed, "uniform", trial.number, param_name)
        return draw_uniform({param_name: param_distribution}, seed)[param_name]
