"""A study as Optuna's samplers should see it: every trial has a value for every gene.

Search spaces suggest only the genes that are active, so trials in the store differ in their
params, and baselines that the space cannot express have none. Optuna's samplers search the genes
that all trials share, so they would lose the conditional ones.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from evomerge.optuna_internals import CONSTRAINTS_KEY
from evomerge.samplers.gene_space import GeneSpace
from evomerge.samplers.learned import CONSTRAINTS, learned_values

__all__ = ["SpaceView"]


class SpaceView:
    """Stand-in for a study that hides foreign trials and completes the others.

    Hidden: trials whose params are empty, no genes of the space, or out of range (also the trial
    that is being asked, which has none yet). Shown: the others, with the default value of every
    inactive gene; one dropped from a race as complete, with the values predicted for it. Everything
    but the trials is the study's own.

    Args:
        study: The real study.
        space: Its genes.
        inherited_attr: Name of a system attribute (an integer) that a trial without it takes over
            from the trial before it, 0 at the start. Genetic samplers find their generations by
            such a label, and only trials they sampled carry it.
        constrained: Whether to show the constraints of a trial (user attribute ``constraints``)
            where Optuna's samplers look for them. Complete trials without them are hidden.
    """

    def __init__(
        self,
        study: Study,
        space: GeneSpace,
        inherited_attr: str | None = None,
        *,
        constrained: bool = False,
    ) -> None:
        self.study = study
        self._space = space
        self._inherited_attr = inherited_attr
        self._constrained = constrained
        self._finished: dict[int, FrozenTrial] = {}

    def __getattr__(self, name: str) -> object:
        if name == "study":  # only while unpickling: do not look for it in itself
            raise AttributeError(name)
        return getattr(self.study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        """See ``optuna.Study.trials``."""
        return self.get_trials()

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See ``optuna.Study.get_trials``."""
        shown = [t for t in self._shown() if states is None or t.state in states]
        return copy.deepcopy(shown) if deepcopy else shown

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        # What Optuna's samplers call; the cache it means is a snapshot of all trials.
        return self.get_trials(deepcopy, states)

    def _shown(self) -> Iterator[FrozenTrial]:
        label = 0
        for trial in self.study.get_trials(deepcopy=False):
            shown = self._finished.get(trial.number) or self._completed(trial, label)
            if shown is None:
                continue
            if trial.state.is_finished():  # such a trial never changes
                self._finished[trial.number] = shown
            if self._inherited_attr is not None:
                label = shown.system_attrs[self._inherited_attr]
            yield shown

    def _completed(self, trial: FrozenTrial, label: int) -> FrozenTrial | None:
        if not self._space.holds(trial.params):
            return None
        values = learned_values(trial, constrained=self._constrained)
        if values is None and trial.state is TrialState.COMPLETE:
            return None
        shown = copy.copy(trial)
        shown.params = self._space.complete(trial.params)
        shown.distributions = dict(self._space.distributions)
        if values is not None:  # also of one that was dropped from a race
            shown.state, shown.values = TrialState.COMPLETE, list(values)
        if self._inherited_attr is not None:
            shown.system_attrs = {self._inherited_attr: label, **trial.system_attrs}
        if self._constrained and CONSTRAINTS in trial.user_attrs:
            excess = trial.user_attrs[CONSTRAINTS]
            shown.system_attrs = {**shown.system_attrs, CONSTRAINTS_KEY: excess}
        return shown
