"""Journals of earlier versions: one line per operation of Optuna's, read as records of today.

Source:
    The operations of ``optuna.storages.JournalStorage``, version 5.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from evomerge.study.journal import Record

__all__ = ["as_record"]

_OPERATION = "op_code"
_OURS = ("trial", "study", "study_user", "study_system")  # one of them is in every record


def as_record(line: Record) -> Record:
    """Read a line of either kind; an operation that changes nothing here is an empty record.

    Raises:
        KeyError: It is neither; an operation that does not exist, or one without a part.
    """
    if "trial" in line:
        return line
    if _OPERATION in line:
        return _OPERATIONS[line[_OPERATION]](line)
    if not any(name in line for name in _OURS):
        raise KeyError(f"none of {_OURS}")
    return line


def _study(line: Record) -> Record:
    return {"study": line["study_name"], "directions": line["directions"]}


def _trial(line: Record) -> Record:
    distributions = line.get("distributions", {})
    values = line.get("values") or ([line["value"]] if line.get("value") is not None else None)
    return {
        "trial": None,  # the next one
        "state": line.get("state", 0),
        **({} if values is None else {"values": values}),
        **_times(line),
        "param": [[n, v, distributions[n]] for n, v in line.get("params", {}).items()],
        "user": line.get("user_attrs", {}),
        "system": line.get("system_attrs", {}),
        "steps": line.get("intermediate_values", {}),
    }


def _param(line: Record) -> Record:
    param = [line["param_name"], line["param_value_internal"], line["distribution"]]
    return {"trial": line["trial_id"], "param": [param]}


def _state(line: Record) -> Record:
    values = {} if line["values"] is None else {"values": line["values"]}
    return {"trial": line["trial_id"], "state": line["state"], **values, **_times(line)}


def _step(line: Record) -> Record:
    return {"trial": line["trial_id"], "steps": {line["step"]: line["intermediate_value"]}}


def _times(line: Record) -> Record:
    names = {"started": "datetime_start", "finished": "datetime_complete"}
    said = {ours: line[theirs] for ours, theirs in names.items() if line.get(theirs) is not None}
    return {name: datetime.fromisoformat(text).timestamp() for name, text in said.items()}


_OPERATIONS: Mapping[int, Callable[[Record], Record]] = {
    0: _study,
    2: lambda line: {"study_user": line["user_attr"]},
    3: lambda line: {"study_system": line["system_attr"]},
    4: _trial,
    5: _param,
    6: _state,
    7: _step,
    8: lambda line: {"trial": line["trial_id"], "user": line["user_attr"]},
    9: lambda line: {"trial": line["trial_id"], "system": line["system_attr"]},
    10: lambda line: {},
}
