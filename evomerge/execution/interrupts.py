"""Ctrl-C and SIGTERM: the first ends a search in order, a second at once; none gets lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interrupts_kept", "stops_counted", "termination_interrupts", "termination_kept"]


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` if one inside was swallowed, or turned into another error.

    Compiled code does so: what it called has failed, and it reports a failure of its own.
    """
    before = signal.getsignal(signal.SIGINT)
    if not _is_main_thread() or not callable(before):
        yield
        return
    raised = []

    def note(number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except KeyboardInterrupt:
            raised.append(number)
            raise

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as err:
        if raised:
            raise KeyboardInterrupt from err
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if raised:
        raise KeyboardInterrupt


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM do inside what Ctrl-C does, unless this process does something else by it."""
    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def termination_kept() -> Iterator[None]:
    """Undo what a library makes of SIGTERM inside."""
    if not _is_main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stops_counted(on_first: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C inside be noted; a second one is a ``KeyboardInterrupt``.

    Args:
        on_first: Called after the first one, in a thread of its own: a handler may come in the
            middle of any output.

    Yields:
        Tells whether one came. Outside the main thread, none comes.
    """
    before = signal.getsignal(signal.SIGINT)
    if not _is_main_thread() or not callable(before):
        yield lambda: False
        return
    told: list[threading.Thread] = []

    def note(number: int, frame: FrameType | None) -> None:
        if told:
            before(number, frame)
            return
        told.append(threading.Thread(target=on_first))
        told[0].start()

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(told)
    finally:
        signal.signal(signal.SIGINT, before)
        for thread in told:
            thread.join()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
