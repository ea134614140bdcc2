"""Ctrl-C ends the work even where a library takes it for a failure of its own."""

from __future__ import annotations

import signal
import threading

import pytest

from evomerge.execution.interrupts import interrupts_kept


def swallow() -> str:
    """Do what compiled code does: whatever happens inside is an error of its own kind."""
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        return "failed"
    return "nothing happened"


def test_a_swallowed_interrupt_is_raised_at_the_end() -> None:
    found = []
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        found.append(swallow())
    assert found == ["failed"]


def test_a_result_is_not_returned_after_an_interrupt() -> None:
    def run() -> str:
        with interrupts_kept():
            return swallow()

    with pytest.raises(KeyboardInterrupt):
        run()


def test_an_error_that_an_interrupt_was_turned_into_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interrupts_kept():
        raise ImportError(swallow())
    assert isinstance(caught.value.__cause__, ImportError)


def test_interrupts_and_errors_pass_as_they_are_and_the_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(ValueError, match="own"), interrupts_kept():
        raise ValueError("own")
    with interrupts_kept():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_changed() -> None:
    done = []

    def work() -> None:
        with interrupts_kept():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
