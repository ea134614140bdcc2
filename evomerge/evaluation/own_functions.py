"""Metrics that are Python functions: found in a file or by an entry point, called item by item."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from importlib.metadata import entry_points
from numbers import Real
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from evomerge.errors import EvaluationError, Fault, brief, did_you_mean
from evomerge.evaluation.scored_items import AnsweredItem
from evomerge.fingerprint import digest_of

__all__ = ["ItemMetric", "call", "find_function", "in_time", "source_texts"]

ItemMetric = Callable[[dict[str, object], list[object], object], float]
"""Called with the dataset row, the answers and what is right; see ``AnsweredItem``."""

_T = TypeVar("_T")
_GROUP = "evomerge.metrics"
_SOURCE = "__evomerge_source__"  # name in a module for the text that it was made of


def find_function(
    file: str | None, entry_point: str | None, name: str, *, anew: bool = False
) -> ItemMetric:
    """Find a function; a file stays what it was when it was read, until it is read anew.

    Args:
        file: A Python file; ``None``: by entry point.
        entry_point: A name in the group ``evomerge.metrics``.
        name: The function in the file.
        anew: Whether to read the file again.

    Raises:
        EvaluationError: It is not there, or no function; by the keys of the metric.
    """
    if file is not None:
        module = _module(file, anew=anew)
        if not hasattr(module, name):
            known = [key for key, value in vars(module).items() if _is_of(value, module)]
            text = f"expected a function {name!r} in {file}, which has {', '.join(known) or 'none'}"
            raise EvaluationError(Fault(("name",), text + did_you_mean(name, known)))
        return _callable(getattr(module, name), "name", name)
    found = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if entry_point not in found:
        known = list(found)
        text = f"expected an entry point of the group {_GROUP}, got {entry_point!r}; installed are "
        near = did_you_mean(str(entry_point), known)
        raise EvaluationError(Fault(("entry_point",), f"{text}{', '.join(known) or 'none'}{near}"))
    try:
        loaded = found[str(entry_point)].load()
    except (Exception, SystemExit) as err:  # a package raises anything when it is imported
        text = f"cannot load {entry_point!r}: {_line(err)}"
        raise EvaluationError(Fault(("entry_point",), text)) from err
    return _callable(loaded, "entry_point", str(entry_point))


def call(function: ItemMetric, metric: str, item: AnsweredItem) -> float:
    """Score one item.

    Args:
        function: Gets copies: what it changes is its own.
        metric: What the message calls it.
        item: What to score.

    Raises:
        EvaluationError: It raises, or returns no finite number; names metric, task and item.
    """
    try:
        value = function(dict(item.doc), list(item.answers), item.target)
    except (Exception, SystemExit) as err:  # code of others raises anything
        raise item.fault(metric, f"the function raised {_line(err)}") from err
    if (number := _finite(value)) is None:
        raise item.fault(metric, f"expected a finite number, got {brief(value)}")
    return number


def in_time(work: Callable[[], _T], seconds: float | None) -> _T:
    """Do some work that may never end.

    Args:
        work: Is left to a thread of its own, which goes on if it takes longer. If it cannot be
            done there, as alarms are for the main one, it is done in this thread.
        seconds: How long it is waited for; ``None``: without end, in this thread.

    Raises:
        TimeoutError: It takes longer.
    """
    if seconds is None:
        return work()
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as err:  # as if it had been called here
            done.set_exception(err)

    Thread(target=run, daemon=True).start()
    try:
        return done.result(seconds)
    except FutureTimeout as err:  # another class before Python 3.11
        raise TimeoutError from err
    except Exception as err:
        if not _is_of_threads(err):
            raise
        return work()


def _is_of_threads(err: BaseException) -> bool:
    """Tell whether an error says that something cannot be done in any thread but the main one."""
    said = "thread" in str(err)
    return said or (err.__cause__ is not None and _is_of_threads(err.__cause__))


def source_texts(file: str | None, entry_point: str | None, name: str) -> Iterator[str]:
    """Yield the code that a function is: its file; of a package the modules beside it, too."""
    if file is not None:
        yield str(vars(_module(file))[_SOURCE])
        return
    found = inspect.getsourcefile(inspect.unwrap(find_function(file, entry_point, name)))
    for beside in sorted(Path(found).parent.glob("*.py")) if found else ():
        yield beside.read_text(encoding="utf-8", errors="replace")


def _module(file: str, *, anew: bool = False) -> ModuleType:
    """Run a file as a module, once in a process unless it is to be read anew and has changed.

    Raises:
        EvaluationError: It cannot be read, or raises.
    """
    name = f"evomerge_metrics_{digest_of(file)}"
    known = sys.modules.get(name)
    if known is not None and not anew:
        return known
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise EvaluationError(Fault(("file",), f"cannot read {file}: {_line(err)}")) from err
    if known is not None and vars(known)[_SOURCE] == text:
        return known
    module = sys.modules[name] = ModuleType(name)  # dataclasses in it look there
    vars(module).update({"__file__": file, _SOURCE: text})
    try:
        exec(compile(text, file, "exec"), vars(module))
    except (Exception, SystemExit) as err:  # code of others raises anything
        del sys.modules[name]
        raise EvaluationError(Fault(("file",), f"cannot run {file}: {_line(err)}")) from err
    return module


def _is_of(value: object, module: ModuleType) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


def _callable(found: Any, key: str, name: str) -> ItemMetric:
    if not callable(found):
        text = f"expected a function behind {name!r}, got {brief(found)}"
        raise EvaluationError(Fault((key,), text))
    function: ItemMetric = found
    return function


def _finite(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, Real | np.bool_) else math.nan
    except OverflowError:  # of whole numbers beyond floats
        return None
    return number if math.isfinite(number) else None


def _line(err: BaseException) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())}"
