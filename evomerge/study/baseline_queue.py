"""The baselines of a study: queued before the search, and again where constraints need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import Trial, TrialState

from evomerge.errors import StudyError
from evomerge.optuna_internals import fix_params, storage_of, trial_id
from evomerge.origins import SEARCH
from evomerge.space.baselines import Baseline
from evomerge.study.constraints import Constraint, unenforced
from evomerge.study.trials import ORIGIN, RECIPE, trial_records

__all__ = ["BaselineQueue"]


class BaselineQueue:
    """Sees to it that every baseline is evaluated, and every bound has a score behind it.

    Args:
        study: Where baselines are queued.
        constraints: Their bounds may refer to baselines.
        n_trials: The budget.
    """

    def __init__(
        self, study: optuna.Study, constraints: Sequence[Constraint], n_trials: int
    ) -> None:
        self._study, self._constraints, self._n_trials = study, constraints, n_trials
        self._references = {c.bound.reference for c in constraints} - {None}
        self._baselines: Mapping[str, Baseline] = {}
        self._tried_again: set[str] = set()

    def add(self, baselines: Sequence[Baseline]) -> None:
        """Queue the baselines that the study does not hold yet, in order.

        One that constraints refer to counts as held only if it was scored, or may still be.
        """
        self._baselines = {baseline.origin: baseline for baseline in baselines}
        for baseline in baselines:
            if not self._is_held(baseline.origin):
                self._add(baseline)

    def try_again(self, origin: str) -> None:
        """Queue a baseline once more that constraints refer to; what fails twice will not do.

        Args:
            origin: Of a trial that has just ended.

        Raises:
            StudyError: It has failed twice.
        """
        if origin not in self._references or self._is_held(origin):
            return
        if origin in self._tried_again:
            self.require_bounds()
        self._tried_again.add(origin)
        self._add(self._baselines[origin])

    def require_bounds(self) -> None:
        """Check that no constraint has lost the baseline that it refers to.

        Raises:
            StudyError: One has.
        """
        records = trial_records(self._study, self._constraints)
        if lost := unenforced(self._constraints, records, self._n_trials):
            raise StudyError(
                f"expected a score behind every constraint, got none for {'; '.join(lost)}; mend "
                "the cause and resume the study (with a larger budget if none is left), which "
                "scores the baseline again; or start one without the constraint"
            )

    def is_repeated(self, trial: Trial) -> bool:
        """Tell whether an earlier trial has this baseline: two drivers that started together."""
        origin = trial.user_attrs.get(ORIGIN, SEARCH)
        return origin != SEARCH and self._is_held(origin, before=trial.number)

    def give_to_search(self, trial: Trial) -> None:
        """Let a trial that was queued as a baseline be one of the search."""
        storage_of(self._study).set_trial_system_attr(trial_id(trial), "fixed_params", {})
        fix_params(trial, {})
        trial.set_user_attr(RECIPE, {})
        trial.set_user_attr(ORIGIN, SEARCH)  # last: killed before, it is repeated still

    def _is_held(self, origin: str, before: int | None = None) -> bool:
        trials = self._study.get_trials(deepcopy=False)[:before]
        states = {t.state for t in trials if t.user_attrs.get(ORIGIN) == origin}
        lost = {TrialState.FAIL, TrialState.PRUNED} if origin in self._references else set()
        return bool(states - lost)

    def _add(self, baseline: Baseline) -> None:
        attrs = {ORIGIN: baseline.origin, RECIPE: baseline.recipe.as_data()}
        self._study.enqueue_trial(dict(baseline.params or {}), user_attrs=attrs)
