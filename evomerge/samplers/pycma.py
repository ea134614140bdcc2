"""CMA-ES as an Optuna sampler."""

from __future__ import annotations

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from evomerge.samplers.gene_space import Gene, GeneSpace
from evomerge.samplers.kinds import Budget, Options, SamplerKind
from evomerge.samplers.replay import PycmaOptions, Replay
from evomerge.samplers.unit_cube import draw_uniform
from evomerge.schema import parse
from evomerge.seeds import seed_for

__all__ = ["PYCMA", "PycmaOptions", "PycmaSampler"]


class PycmaSampler(BaseSampler):
    """CMA-ES over all genes, started at their defaults; never waits for a result.

    A generation ends at the first ask after ``popsize`` results have come in; asks until then
    draw more points from the current distribution, and a result that comes later counts in the
    generation in which it comes. Failed and pruned trials rank last in theirs. Several objectives
    are scalarised by a random preference per generation. An inactive gene counts as what was
    drawn for it.

    Trials in the space that somebody else chose (baselines, trials of another sampler) count,
    too, but pull no further than a drawn point would. A trial that failed and was run again counts
    once.

    Args:
        space: The genes.
        options: Options of CMA-ES.
        seed: The study's seed.
    """

    def __init__(self, space: GeneSpace, options: PycmaOptions, *, seed: int) -> None:
        self._space = space
        self._options = options
        self._seed = seed
        self._replay: Replay | None = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all genes that can vary."""
        return dict(self._space.searched)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Gene]:
        """Return a value for every gene, active or not."""
        if not search_space:
            return {}
        if self._replay is None or not self._replay.continues(study):
            self._replay = Replay(study, self._space, self._options, seed=self._seed)
        return self._replay.ask(trial)

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


def _build(options: Options, budget: Budget) -> BaseSampler:
    chosen = parse(PycmaOptions, options, "sampler")
    return PycmaSampler(budget.space, chosen, seed=budget.seed)


PYCMA = SamplerKind("one objective, numbers only, at least 10 trials per gene", _build)
