"""Any Optuna sampler, made to search a space whose genes are not all active in every trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import cast

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from evomerge.samplers.gene_space import GeneSpace, GeneValue
from evomerge.samplers.joint import AllGenes
from evomerge.samplers.unit_cube import draw_uniform
from evomerge.samplers.view import SpaceView
from evomerge.seeds import seed_for

__all__ = ["InSpace"]


class InSpace(AllGenes):
    """Asks a wrapped sampler for all genes at once, on a view in which all trials have them all.

    The wrapped sampler is built afresh for every trial, with a seed of that trial, so the next
    ask is a function of the stored trials, the seed and the trial number: a resumed study
    continues like one that was never stopped. It is asked jointly, whatever space it would infer
    itself; genes that it leaves open (random start-up, mutations) are drawn uniformly.

    Args:
        factory: Makes the wrapped sampler from a seed in [0, 2**32).
        space: The genes.
        seed: The study's seed.
        inherited_attr: See ``SpaceView``.
        constrained: See ``SpaceView``.
    """

    def __init__(
        self,
        factory: Callable[[int], BaseSampler],
        space: GeneSpace,
        *,
        seed: int,
        inherited_attr: str | None = None,
        constrained: bool = False,
    ) -> None:
        super().__init__(space, seed=seed)
        self._factory = factory
        self._inherited_attr = inherited_attr
        self._constrained = constrained
        self._last_view: SpaceView | None = None

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, GeneValue]:
        """Return a value for every gene, active or not."""
        if not search_space:
            return {}
        drawn = self._inner(trial).sample_relative(self._view(study), trial, search_space)
        # The rest not by the wrapped sampler's own random part: Optuna seeds that like the main
        # part, so with a sampler per trial both would draw the same numbers.
        rest = draw_uniform(search_space, seed_for(self._seed, "uniform", trial.number))
        return {**rest, **drawn}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on to the wrapped sampler."""
        self._inner(trial).before_trial(self._view(study), trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Pass on to the wrapped sampler."""
        self._inner(trial).after_trial(self._view(study), trial, state, values)

    def _inner(self, trial: FrozenTrial) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # once per trial would be noise
            return self._factory(_optuna_seed(self._seed, "ask", trial.number))

    def _view(self, study: Study) -> Study:
        if self._last_view is None or self._last_view.study is not study:
            self._last_view = SpaceView(
                study, self._space, self._inherited_attr, constrained=self._constrained
            )
        return cast(Study, self._last_view)


def _optuna_seed(study_seed: int, *labels: str | int) -> int:
    """Derive the seed of one named draw in the range that Optuna's samplers accept."""
    return seed_for(study_seed, *labels) % 2**32
