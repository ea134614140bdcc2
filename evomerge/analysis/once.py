"""What follows from a study record, computed once for each record."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from evomerge.study.records import StudyRecord

__all__ = ["once"]

T = TypeVar("T")
P = ParamSpec("P")


def once(
    compute: Callable[Concatenate[StudyRecord, P], T],
) -> Callable[Concatenate[StudyRecord, P], T]:
    """Remember what a function makes of a record, which never changes, with the record.

    Args:
        compute: Other arguments than the record must be hashable; nobody may change its answer.
    """
    name = f"{compute.__module__}.{compute.__qualname__}"

    @wraps(compute)
    def remembered(study: StudyRecord, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (name, args, *sorted(kwargs.items()))
        if key not in study.derived:
            study.derived[key] = compute(study, *args, **kwargs)
        found: T = study.derived[key]
        return found

    return cast("Callable[Concatenate[StudyRecord, P], T]", remembered)
