"""A study in a database, which several drivers open at once and whose server may restart."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage

from evomerge.errors import StudyError
from evomerge.secrets import filled_in, without_secrets

__all__ = ["open_database"]

_log = logging.getLogger(__name__)
_OPENINGS = 8  # of drivers that make the tables at the same moment all but one fail, and try again
_PATIENCE_S = 300.0  # until a server that does not answer has had time to restart
_LONGEST_WAIT_S = 5.0


def open_database(url: str, patience_s: float = _PATIENCE_S) -> BaseStorage:
    """Open the storage, making its tables if there are none.

    Args:
        url: Of the database; ``${NAME}`` in it stands for an environment variable.
        patience_s: How long a call waits for a server that went away.

    Raises:
        StudyError: It cannot be opened, a variable is not set, or the package that talks to it is
            missing.
    """
    address = filled_in(url)
    try:
        return _patient(optuna.storages.get_storage(_opened(address)), patience_s)
    except ImportError as err:
        raise StudyError(f"{_missing_package(url)} ({err.__cause__ or err})") from err
    except Exception as err:  # SQLAlchemy and the drivers raise types of their own
        reason = str(err).splitlines()[0]
        wrong = f"expected a database URL that opens, got {url!r}: {reason}"
        raise StudyError(without_secrets(wrong)) from err


def _opened(url: str) -> RDBStorage:
    for opening in range(1, _OPENINGS):
        try:
            return RDBStorage(url)
        except Exception as err:
            if not _is_made_meanwhile(err):
                raise
            time.sleep(0.1 * opening)
    return RDBStorage(url)


def _is_made_meanwhile(err: Exception) -> bool:
    """Tell whether another driver has just made what was to be made here."""
    from sqlalchemy.exc import IntegrityError

    return isinstance(err, IntegrityError) or "already exists" in str(err)


def _missing_package(url: str) -> str:
    if url.startswith("postgres"):
        return "the package psycopg is not installed; pip install 'psycopg[binary]'"
    return "expected the package that talks to this kind of database; install it"


def _patient(storage: BaseStorage, patience_s: float) -> BaseStorage:
    """Wrap a storage so that every call is tried again while the server is away.

    A call is one transaction, and may have taken effect before the connection was lost: whatever
    is written twice must come to the same. A trial that is queued twice waits for a larger budget.
    """

    def method(name: str) -> Callable[..., Any]:
        call = getattr(storage, name)

        def patiently(self: BaseStorage, *args: Any, **kwargs: Any) -> Any:
            return _tried(lambda: call(*args, **kwargs), patience_s)

        return patiently

    methods = {name: method(name) for name in _METHODS}
    wrapped: BaseStorage = type("_PatientStorage", (BaseStorage,), methods)()
    return wrapped


_METHODS = sorted(
    name for name, member in vars(BaseStorage).items() if callable(member) and name[0] != "_"
)


def _tried(call: Callable[[], Any], patience_s: float) -> Any:
    started, wait_s, is_first = time.monotonic(), 0.1, True
    while True:
        try:
            return call()
        except UpdateFinishedTrialError:
            if is_first:
                raise
            return True  # told, by the call whose connection was lost
        except Exception as err:
            reason = _lost_connection(err)
            if reason is None:
                raise
            if time.monotonic() - started + wait_s > patience_s:
                raise StudyError(
                    f"the database has not answered for {patience_s:.0f} s: {reason}; nothing that "
                    "was told is lost: 'evomerge resume DIR' continues once it is back"
                ) from err
            _log.warning("the database does not answer (%s); trying again", reason)
        time.sleep(wait_s)
        wait_s, is_first = min(2 * wait_s, _LONGEST_WAIT_S), False


def _lost_connection(err: Exception) -> str | None:
    """Say why the server is away; ``None`` if something else went wrong."""
    from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError

    cause = err.__cause__ if isinstance(err, StorageInternalError) else err
    if isinstance(cause, PendingRollbackError):  # of a transaction that lost its connection
        return "the connection was lost in a transaction"
    if not isinstance(cause, (InterfaceError, OperationalError)):
        return None
    return str(cause.orig or cause).splitlines()[0]
