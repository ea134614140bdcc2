"""Optuna's storage interface over a journal file: one line for all that is stored together.

Optuna's own journal writes a line per param and attribute, and reads each of them as a change of
its own: a trial of 50 genes has 60 lines and 20 KB there, three lines and 2 KB here.

A record of the study has ``study`` and ``directions``, or ``study_user``, ``study_system``
(attributes). A record of a trial has ``trial`` (its number) and what changed: ``state``,
``values``, ``started``, ``finished`` (seconds since 1970), ``user``, ``system`` (attributes),
``steps`` (intermediate values), and its params as in ``gene_table``. Operations of Optuna's own
journal, as earlier versions wrote them, are read as well.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge.errors import StudyError
from evomerge.optuna_internals import FrozenStudy, frozen_study
from evomerge.study.collecting import without_collecting
from evomerge.study.early_journal import as_record
from evomerge.study.journal import Journal, Record
from evomerge.study.journal_content import STUDY_ID, JournalContent
from evomerge.study.json_files import MALFORMED

__all__ = ["TrialJournal"]


class TrialJournal(BaseStorage):
    """The study in a journal file; any number of threads and processes may use it.

    Whoever writes holds the file's lock and has read to its end, so what is stored takes effect in
    the order of the file. Of a ``batch`` that is from its first record to its end; a process that
    is killed meanwhile leaves none of its records.

    Args:
        journal: The file.

    Raises:
        StudyError: The file is damaged.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread_lock = threading.RLock()
        self._is_batch = False
        self._held: dict[int | None, Record] = {}  # not written yet, by trial; None: of the study
        self._content = JournalContent()
        self._read_on()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hold back what the block stores and write it at its end, also if it raises."""
        self._is_batch = True
        try:
            yield
        finally:
            self._is_batch = False
            with self._thread_lock:
                self._write_held()

    def is_current(self) -> bool:
        """Tell whether nobody else has written to the file since it was read or written here."""
        return self._journal.is_unchanged()

    def _read_on(self) -> None:
        if self._held:  # nobody else writes meanwhile
            return
        with without_collecting():
            for records in self._journal.read_on():
                self._apply(records)

    def _apply(self, records: Sequence[Record]) -> None:
        for i, record in enumerate(records):
            try:
                self._content.apply(as_record(record))
            except MALFORMED as err:
                raise self._journal.damaged(i) from err

    @contextmanager
    def _reading(self) -> Iterator[JournalContent]:
        with self._thread_lock:
            self._read_on()
            yield self._content

    @contextmanager
    def _writing(self) -> Iterator[JournalContent]:
        with self._thread_lock:
            if not self._held:
                self._journal.lock()
            try:
                self._read_on()
                yield self._content
            finally:
                if not self._held:
                    self._journal.unlock()
                elif not self._is_batch:
                    self._write_held()

    def _write_held(self) -> None:
        held, self._held = self._held, {}
        if not held:
            return
        try:
            self._journal.append([self._content.whole(record) for record in held.values()])
        except BaseException:
            self._forget()
            raise
        finally:
            self._journal.unlock()

    def _forget(self) -> None:
        """Read everything again: memory is ahead of a file that could not be written."""
        self._journal, self._content = self._journal.again(), JournalContent()

    def _store(self, number: int | None, **changes: Any) -> None:
        """Let a change take effect and hold it until it is written."""
        if number is not None:
            self._content.require_unfinished(number)
        self._take(number, changes)

    def _take(self, number: int | None, changes: Record) -> None:
        record = json.loads(json.dumps(changes))  # as whoever reads it will see it
        if number is not None:
            record = {"trial": number, **record}
        self._content.apply(record)
        _merge(self._held.setdefault(number, {}), record)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """See ``BaseStorage``; a journal holds one study."""
        with self._writing() as content:
            if content.study is not None:
                raise DuplicatedStudyError(f"the journal has its study, {content.study!r}")
            self._store(None, study=study_name or "study", directions=list(map(int, directions)))
        return STUDY_ID

    def delete_study(self, study_id: int) -> None:
        """See ``BaseStorage``; here refused: trials are never taken out of a journal.

        Raises:
            StudyError: Always.
        """
        raise StudyError("expected a study to be deleted with its folder, got its journal alone")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See ``BaseStorage``."""
        with self._writing() as content:
            content.require_study(study_id)
            self._store(None, study_user={key: value})

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See ``BaseStorage``."""
        with self._writing() as content:
            content.require_study(study_id)
            self._store(None, study_system={key: value})

    def get_study_id_from_name(self, study_name: str) -> int:
        """See ``BaseStorage``."""
        with self._reading() as content:
            if study_name != content.study:
                raise KeyError(f"no study {study_name!r}")
        return STUDY_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        """See ``BaseStorage``."""
        with self._reading() as content:
            return content.require_study(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See ``BaseStorage``."""
        with self._reading() as content:
            content.require_study(study_id)
            return content.directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See ``BaseStorage``."""
        with self._reading() as content:
            content.require_study(study_id)
            return content.attributes["study_user"]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See ``BaseStorage``."""
        with self._reading() as content:
            content.require_study(study_id)
            return content.attributes["study_system"]

    def get_all_studies(self) -> list[FrozenStudy]:
        """See ``BaseStorage``."""
        with self._reading() as content:
            name, attributes = content.study, content.attributes
            if name is None:
                return []
            return [frozen_study(STUDY_ID, name, content.directions, *attributes.values())]

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See ``BaseStorage``."""
        with self._writing() as content:
            content.require_study(study_id)
            number = len(content.trials)
            self._take(number, _new() if template_trial is None else _as_template(template_trial))
        return number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """See ``BaseStorage``."""
        text = distribution_to_json(distribution)
        with self._writing() as content:
            content.require_unfinished(trial_id)
            content.genes.require_fitting(param_name, content.genes.distribution(text))
            self._store(trial_id, param=[[param_name, float(param_value_internal), text]])

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See ``BaseStorage``."""
        with self._writing() as content:
            now = content.require_unfinished(trial_id).state
            if state == TrialState.RUNNING and now != TrialState.WAITING:
                return False  # another driver has taken it
            times = {"started": _now()} if state == TrialState.RUNNING else {}
            times = {"finished": _now()} if state.is_finished() else times
            said = {} if values is None else {"values": list(values)}
            self._store(trial_id, state=int(state), **said, **times)
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """See ``BaseStorage``."""
        with self._writing():
            self._store(trial_id, steps={step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See ``BaseStorage``."""
        with self._writing():
            self._store(trial_id, user={key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See ``BaseStorage``."""
        with self._writing():
            self._store(trial_id, system={key: value})

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See ``BaseStorage``."""
        with self._reading() as content:
            return content.lent(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See ``BaseStorage``."""
        with self._reading() as content:
            content.require_study(study_id)
            found = content.chosen(states)
            return copy.deepcopy(found) if deepcopy else found

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """See ``BaseStorage``."""
        with self._reading() as content:
            content.require_study(study_id)
            return content.require_trial(trial_number).number


def _now() -> float:
    return round(time.time(), 6)


def _new() -> Record:
    return {"state": int(TrialState.RUNNING), "started": _now()}


def _as_template(trial: FrozenTrial) -> Record:
    """Write a trial that is given as a whole, leaving out what is empty."""
    starts = {"started": trial.datetime_start, "finished": trial.datetime_complete}
    params = [
        [name, d.to_internal_repr(trial.params[name]), distribution_to_json(d)]
        for name, d in trial.distributions.items()
    ]
    parts = {
        "values": trial.values,
        **{name: time and time.timestamp() for name, time in starts.items()},
        "param": params,
        "user": trial.user_attrs,
        "system": trial.system_attrs,
        "steps": trial.intermediate_values,
    }
    return {"state": int(trial.state), **{name: part for name, part in parts.items() if part}}


def _merge(held: Record, record: Record) -> None:
    """Add a change to one that is held."""
    for name, part in record.items():
        held[name] = {**held.get(name, {}), **part} if isinstance(part, dict) else part
