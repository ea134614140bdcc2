"""Ctrl-C ends the work even where a library takes it for a failure of its own."""

from __future__ import annotations

import math
import signal
import threading
import time

import pytest

from evomerge.evaluation.scores import Scores
from evomerge.execution.happenings import Happening
from evomerge.execution.inline import InlineExecutor
from evomerge.execution.interrupts import (
    interrupts_kept,
    stops_counted,
    termination_interrupts,
    termination_kept,
)
from evomerge.execution.patience import Patience
from evomerge.execution.protocol import Job, Scored
from evomerge.recipe.recipe import Recipe, Rule


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


def test_the_first_interrupt_is_noted_and_the_second_raised() -> None:
    before, told = signal.getsignal(signal.SIGINT), []
    found = []

    def work() -> None:
        with stops_counted(lambda: told.append(True)) as is_stopping:
            found.append(is_stopping())
            signal.raise_signal(signal.SIGTERM)
            found.append(is_stopping())
            with interrupts_kept():
                found.append(True)  # the work in between goes on
            signal.raise_signal(signal.SIGTERM)
            found.append(False)

    with pytest.raises(KeyboardInterrupt), termination_interrupts(), interrupts_kept():
        work()
    assert found == [False, True, True]
    assert told == [True]
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_interrupt_that_is_only_noted_is_not_raised_at_the_end() -> None:
    with stops_counted(lambda: None) as is_stopping:
        with interrupts_kept():
            signal.raise_signal(signal.SIGINT)
        assert is_stopping()


def test_what_a_library_makes_of_termination_is_undone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with termination_kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_job_that_hangs_in_this_process_is_reported_once() -> None:
    heard: list[Happening] = []
    executor = InlineExecutor(heard.append, Patience(math.inf, scale=0.001))  # slow from 60 ms on
    job = Job(3, Recipe({"a": "a"}, (Rule("linear", {}),)))
    assert executor._watch.patience.slow_s(job) == math.inf  # nothing is known yet
    with executor._watched(job):
        pass
    for _ in range(3):
        executor._watch.patience.learn(Scored(job, Scores({}, (), 0.0), {"merge": 1.0}), 0.001)
    with executor._watched(job):
        deadline = time.monotonic() + 30
        while heard[-1].kind != "waiting" and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [one.kind for one in heard] == ["started", "started", "waiting"]
    assert "trial 3 has run for" in heard[-1].text
