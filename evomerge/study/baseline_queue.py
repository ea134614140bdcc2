"""The baselines of a study: queued before the search, and again where constraints need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.trial import Trial, TrialState

from evomerge.errors import StudyError
from evomerge.origins import SEARCH
from evomerge.space.baselines import Baseline
from evomerge.study.constraints import unenforced
from evomerge.study.ledger import Ledger, origin_of

__all__ = ["BaselineQueue"]


class BaselineQueue:
    """Sees to it that every baseline is evaluated, and every bound has a score behind it.

    Args:
        ledger: Where baselines are queued; the bounds of its constraints may refer to them.
        n_trials: The budget.
    """

    def __init__(self, ledger: Ledger, n_trials: int) -> None:
        self._ledger, self._n_trials = ledger, n_trials
        self._references = {c.bound.reference for c in ledger.constraints} - {None}
        self._baselines: Mapping[str, Baseline] = {}
        self._tried_again: set[str] = set()

    def add(self, baselines: Sequence[Baseline]) -> None:
        """Queue the baselines that the study does not hold yet, in order.

        One that constraints refer to counts as held only if it was scored, or may still be.
        """
        self._baselines = {baseline.origin: baseline for baseline in baselines}
        for baseline in baselines:
            if not self._is_held(baseline.origin):
                self._ledger.queue(baseline)

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
        self._ledger.queue(self._baselines[origin])

    def require_bounds(self) -> None:
        """Check that no constraint has lost the baseline that it refers to.

        Raises:
            StudyError: One has.
        """
        records = self._ledger.records()
        if lost := unenforced(self._ledger.constraints, records, self._n_trials):
            raise StudyError(
                f"expected a score behind every constraint, got none for {'; '.join(lost)}; mend "
                "the cause and resume the study (with a larger budget if none is left), which "
                "scores the baseline again; or start one without the constraint"
            )

    def is_repeated(self, trial: Trial) -> bool:
        """Tell whether an earlier trial has this baseline: two drivers that started together."""
        origin = origin_of(trial)
        return origin != SEARCH and self._is_held(origin, before=trial.number)

    def _is_held(self, origin: str, before: int | None = None) -> bool:
        states = {t.state for t in self._ledger.trials()[:before] if origin_of(t) == origin}
        lost = {TrialState.FAIL, TrialState.PRUNED} if origin in self._references else set()
        return bool(states - lost)
