"""A sampler whose first trials are those of another one: slopes lead near the front, it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from evomerge.samplers.chains import LINK
from evomerge.samplers.gene_space import GeneValue
from evomerge.samplers.kinds import SearchProblem
from evomerge.samplers.slopes import SLOPES

__all__ = ["SlopesFirst"]


class SlopesFirst(BaseSampler):
    """Lets ``slopes`` choose the first trials that are asked for, and another sampler the others.

    Their climbs are short. To the other sampler they are trials that somebody else chose.

    Args:
        then: Who goes on.
        n_trials: How many trials slopes choose; baselines do not count.
        problem: What is searched.

    Raises:
        SpaceError: Nothing here has slopes.
    """

    def __init__(self, then: BaseSampler, n_trials: int, problem: SearchProblem) -> None:
        self._first = SLOPES.build({"short": n_trials}, problem)
        self._then, self._n_trials = then, n_trials

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all genes that can vary."""
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, GeneValue]:
        """Return a value for every gene."""
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> GeneValue:
        """Draw a param that is no gene of the space."""
        drawn: GeneValue = self._then.sample_independent(
            study, trial, param_name, param_distribution
        )
        return drawn

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on to who goes on."""
        self._then.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Pass on to who goes on."""
        self._then.after_trial(study, trial, state, values)

    def _of(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        """Say who chooses a trial; asked again, the same."""
        before = study.get_trials(deepcopy=False)[: trial.number]
        n_chosen = sum(LINK in other.system_attrs for other in before)
        return self._first if n_chosen < self._n_trials else self._then
