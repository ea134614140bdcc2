"""The drivers of a study: which running trials are whose, and which are nobody's.

A trial is first queued, then taken, which only one driver can do: so of the numbers below the
budget each is asked once. A driver marks a trial as its own as soon as it has taken it. Killed in
between, it leaves a running trial without a mark, which any driver of the database may take over.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from evomerge.optuna_internals import storage_of, study_id, trial_id, without_sampler
from evomerge.study.evaluations import is_used_up
from evomerge.study.identity import Identity
from evomerge.study.ledger import DRIVER, CostSoFar
from evomerge.study.storage import together

__all__ = ["Drivers"]

_REGISTERED = "driver:"  # study user attributes: who ever ran trials
_SETTLED = 0.1  # of the patience: until of several marks the last one is seen by all
_LONGEST_POLL_S = 1.0


class Drivers:
    """What one driver knows of those that it shares a study with.

    Nobody's clock is trusted but one's own: a driver takes over what it has itself seen unmarked
    for as long as its patience. Of several that do so at once the last one to put its mark runs it.

    Args:
        study: In a database that others may use, too.
        identity: Of this driver, the same after a restart; ``None``: there are no others, as with
            a journal file.
        patience_s: More than an ask takes.
    """

    def __init__(
        self, study: optuna.Study, identity: Identity | None, patience_s: float = 60.0
    ) -> None:
        self._study, self._patience_s = study, patience_s
        self._cost_so_far = CostSoFar()
        self._name = None if identity is None else identity.id
        self._seen: dict[int, float] = {}  # by number, from when nobody's
        self._claimed: dict[int, float] = {}  # by number, from when marked here
        if identity is not None:
            study.set_user_attr(f"{_REGISTERED}{identity.id}", asdict(identity))

    def ask(self, n_trials: int) -> Trial | None:
        """Take the next trial, one that was queued first.

        Args:
            n_trials: The budget, in evaluations.

        Returns:
            The trial; ``None`` if the budget is used up, by whichever driver.
        """
        with together(storage_of(self._study)):
            taken = self._take_next(n_trials)
        return None if taken is None else self.open(taken)

    def _take_next(self, n_trials: int) -> int | None:
        storage, study = storage_of(self._study), study_id(self._study)
        while True:
            trials = self._study.get_trials(deepcopy=False)
            rest = self._cost_so_far.rest(trials)
            queued = next((t for t in rest if t.state == TrialState.WAITING), None)
            if is_used_up(self._cost_so_far.total(trials, with_queued=False), n_trials):
                return None
            if queued is None:
                storage.create_new_trial(study, create_trial(state=TrialState.WAITING))
            elif self._take(queued) and self.mark(queued):
                return trial_id(queued)

    def _take(self, queued: FrozenTrial) -> bool:
        try:
            storage = storage_of(self._study)
            return storage.set_trial_state_values(trial_id(queued), TrialState.RUNNING)
        except UpdateFinishedTrialError:  # taken and told meanwhile
            return False

    def open(self, trial_id: int) -> Trial:
        """Open a running trial; samplers see the study as it is now."""
        self._study._thread_local.cached_all_trials = None  # as ``Study.ask`` does
        return Trial(self._study, trial_id)

    def reopen(self, trial_id: int) -> Trial:
        """Open a running trial of which the sampler has said all; it is not asked again."""
        return Trial(without_sampler(self._study), trial_id)

    def mark(self, trial: FrozenTrial) -> bool:
        """Mark a trial as this driver's; ``False`` if another one has taken it meanwhile."""
        if self._name is None:
            return True
        stored = storage_of(self._study).get_trial(trial_id(trial))
        if stored.state.is_finished() or _owner(stored) not in (None, self._name):
            return False
        storage_of(self._study).set_trial_user_attr(trial_id(trial), DRIVER, self._name)
        return True

    def unfinished(self) -> list[FrozenTrial]:
        """List the trials that this driver left running when it was last stopped."""
        running = self._running()  # before looking for others, who register before they ask
        if self._is_alone():
            return running
        return [trial for trial in running if _owner(trial) == self._name]

    def abandoned(self) -> list[FrozenTrial]:
        """Take over what was nobody's for too long; call it now and then.

        Returns:
            Trials to run again here, each once.
        """
        if self._name is None:
            return []
        self._claim_nobodys(self._name)
        return self._settled()

    @property
    def is_waiting(self) -> bool:
        """Whether a trial was nobody's at the last look, so that there may be more to run."""
        return bool(self._seen or self._claimed)

    def wait(self) -> None:
        """Sleep until it is worth while to look again."""
        time.sleep(min(_LONGEST_POLL_S, _SETTLED * self._patience_s))

    def _claim_nobodys(self, name: str) -> None:
        now = time.monotonic()
        nobodys = [trial for trial in self._running() if _owner(trial) is None]
        self._seen = {t.number: self._seen.get(t.number, now) for t in nobodys}
        for trial in nobodys:
            if now - self._seen[trial.number] >= self._patience_s:
                storage_of(self._study).set_trial_user_attr(trial_id(trial), DRIVER, name)
                self._claimed[trial.number] = now

    def _settled(self) -> list[FrozenTrial]:
        now, wait_s = time.monotonic(), _SETTLED * self._patience_s
        settled = {number for number, since in self._claimed.items() if now - since >= wait_s}
        self._claimed = {n: since for n, since in self._claimed.items() if n not in settled}
        mine = [trial for trial in self._running() if _owner(trial) == self._name]
        return [trial for trial in mine if trial.number in settled]

    def _is_alone(self) -> bool:
        names = {_owner(trial) for trial in self._study.get_trials(deepcopy=False)}
        attrs = self._study.user_attrs
        names |= {a.removeprefix(_REGISTERED) for a in attrs if a.startswith(_REGISTERED)}
        return self._name is None or names <= {self._name, None}

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _owner(trial: FrozenTrial) -> str | None:
    return trial.user_attrs.get(DRIVER)
