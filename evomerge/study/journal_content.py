"""What a journal says: the study and its trials as its records have made them so far."""

from __future__ import annotations

import copy
from collections.abc import Container
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge.optuna_internals import UnreadTrial
from evomerge.study.gene_table import GeneTable
from evomerge.study.journal import Record

__all__ = ["STUDY_ID", "JournalContent"]

STUDY_ID = 0
"""A journal holds one study; a trial's id is its number."""

_NOTHING = (None, None, None)  # value, start, end
_STUDY_ATTRIBUTES = ("study_user", "study_system")
_STATES = {int(state): state for state in TrialState}


class JournalContent:
    """What a journal says so far; records as ``trial_journal`` describes them.

    A trial that was handed out stays as it was then: what changes afterwards is a copy.
    """

    def __init__(self) -> None:
        self.study: str | None = None
        self.directions: list[StudyDirection] = []
        self.attributes: dict[str, dict[str, Any]] = {name: {} for name in _STUDY_ATTRIBUTES}
        self.trials: list[UnreadTrial] = []
        self.genes = GeneTable()
        self._unfinished: set[int] = set()
        self._own: set[int] = set()  # unfinished trials that nobody else has

    def apply(self, record: Record) -> None:
        """Let a record take effect."""
        if "trial" in record:
            self._apply_to_trial(record)
        else:
            self._apply_to_study(record)

    def _apply_to_study(self, record: Record) -> None:
        if "study" in record and self.study is None:
            self.study = str(record["study"])
            self.directions = [StudyDirection(d) for d in record["directions"]]
        for name in _STUDY_ATTRIBUTES:
            if name in record:
                self.attributes[name] = {**self.attributes[name], **record[name]}

    def _apply_to_trial(self, record: Record) -> None:
        number = record["trial"]
        if number is None or number == len(self.trials):
            number = self._add()
        elif self._is_too_late(self.trials[number], record):
            return
        if number not in self._own:
            self.trials[number] = copy.copy(self.trials[number])
            self._own.add(number)
        self._change(self.trials[number], record)

    def _add(self) -> int:
        number = len(self.trials)
        state = TrialState.WAITING
        self.trials.append(UnreadTrial(number, state, *_NOTHING, {}, {}, {}, {}, {}, number))
        self._unfinished.add(number)
        self._own.add(number)
        return number

    def _is_too_late(self, trial: FrozenTrial, record: Record) -> bool:
        """Tell what a writer of an earlier version stored after another one was faster."""
        is_taken = record.get("state") == TrialState.RUNNING == trial.state
        return is_taken or trial.number not in self._unfinished

    def _change(self, trial: UnreadTrial, record: Record) -> None:
        if "state" in record:
            trial.state = _STATES[record["state"]]
            if trial.state.is_finished():
                self._unfinished.discard(trial.number)
        if "values" in record:
            trial.values = record["values"]
        if "started" in record:
            trial.datetime_start = datetime.fromtimestamp(record["started"])
        if "finished" in record:
            trial.datetime_complete = datetime.fromtimestamp(record["finished"])
        if "params" in record:
            trial.read_later(self.genes.unpacked(record))
        for name, number, text in record.get("param", ()):
            self._set_param(trial, name, number, self.genes.distribution(text))
        if "user" in record:
            trial.user_attrs = {**trial.user_attrs, **record["user"]}
        if "system" in record:
            trial.system_attrs = {**trial.system_attrs, **record["system"]}
        if "steps" in record:
            steps = {int(step): value for step, value in record["steps"].items()}
            trial.intermediate_values = {**trial.intermediate_values, **steps}

    def _set_param(
        self, trial: FrozenTrial, name: str, number: float, distribution: BaseDistribution
    ) -> None:
        self.genes.require_fitting(name, distribution)
        trial.params = {**trial.params, name: distribution.to_external_repr(number)}
        trial.distributions = {**trial.distributions, name: distribution}

    def whole(self, record: Record) -> Record:
        """Fill in the params of a trial's record that is to be written."""
        if "param" not in record:
            return record
        trial = self.trials[record["trial"]]
        rest = {name: value for name, value in record.items() if name != "param"}
        return {**rest, **self.genes.packed(trial.params, trial.distributions)}

    def chosen(self, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """Hand out the trials in some states, by number."""
        self._own.clear()
        if states is None:
            return [*self.trials]
        if any(state in states for state in TrialState if state.is_finished()):
            return [trial for trial in self.trials if trial.state in states]
        unfinished = (self.trials[number] for number in sorted(self._unfinished))
        return [trial for trial in unfinished if trial.state in states]

    def lent(self, number: int) -> FrozenTrial:
        """Hand out a trial; one that is not finished as a copy, which Optuna writes into."""
        trial = self.require_trial(number)
        if trial.state.is_finished():
            return trial
        lent = copy.copy(trial)
        lent.params, lent.distributions = dict(trial.params), dict(trial.distributions)
        lent.user_attrs, lent.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
        lent.intermediate_values = dict(trial.intermediate_values)
        return lent

    def require_study(self, study_id: int) -> str:
        """Return the study's name.

        Raises:
            KeyError: There is no such study.
        """
        if self.study is None or study_id != STUDY_ID:
            raise KeyError(f"no study {study_id}")
        return self.study

    def require_trial(self, number: int) -> FrozenTrial:
        """Return a trial as it is.

        Raises:
            KeyError: There is no such trial.
        """
        if not 0 <= number < len(self.trials):
            raise KeyError(f"no trial {number}")
        return self.trials[number]

    def require_unfinished(self, number: int) -> FrozenTrial:
        """Return a trial that may change.

        Raises:
            KeyError: There is no such trial.
            UpdateFinishedTrialError: It is finished.
        """
        trial = self.require_trial(number)
        if trial.state.is_finished():
            raise UpdateFinishedTrialError(f"trial {number} is finished, and stays as it is")
        return trial
