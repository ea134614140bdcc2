"""Progress where there is no terminal: a line per interval on stderr."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge import progress as module
from evomerge.progress import PassProgress, SearchProgress, progress_bar
from evomerge.study.records import StudyRecord, TrialRecord
from tests.analysis.synthetic import objectives

STUDY = StudyRecord(name="s", objectives=(), trials=(), finals=(), n_trials=4)

TRIAL = TrialRecord(
    number=0,
    state="complete",
    origin="search",
    values=(),
    stderr=(),
    params={},
    recipe={},
    seconds={},
    error=None,
    started=None,
    finished=None,
    n_items=(),
)


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("every_line")
def test_a_pass_says_how_far_it_is_and_how_long_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar() as bar:
        told = PassProgress(bar, "merging")
        told(25, 100)
        told(50, 100)
        told(100, 100)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "merging: 25% · 0 s"  # one point makes no pace
    assert second == "merging: 50% · 0 s · left 0 s"
    assert third.startswith("merging: 100%")


def test_short_passes_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as bar:
        PassProgress(bar, "merging")(100, 100)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("every_line")
def test_a_search_shows_its_statistics_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchProgress() as progress:
        progress.began(STUDY)
        progress.phase("measuring the models")
        progress.part("statistics of the models", 1, 2)
    assert capsys.readouterr().err.splitlines() == [
        "measuring the models",
        "statistics of the models: 50% · 0 s",
    ]


@pytest.mark.usefixtures("every_line")
def test_what_is_left_is_told_by_the_pace_after_the_first_trial(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.0, 400.0, 430.0])  # made, began, and the ends of two trials
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = SearchProgress()
    progress.began(replace(STUDY, n_trials=242))
    for number in range(2):
        progress.told(replace(TRIAL, number=number))
    assert capsys.readouterr().err.splitlines() == [
        "1/242 trials · 5 min",
        "2/242 trials · 6 min · left 2 h",
    ]


@pytest.mark.usefixtures("every_line")
def test_what_is_left_follows_the_pace_of_the_last_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two slow trials, then one a second: what is left is seconds, whatever the first ones took.
    ends = [300.0, 600.0, *(600.0 + n for n in range(1, 60))]
    clock = iter([0.0, 0.0, *ends])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = SearchProgress()
    progress.began(replace(STUDY, n_trials=71))
    for number in range(len(ends)):
        progress.told(replace(TRIAL, number=number))
    assert capsys.readouterr().err.splitlines()[-1].endswith("left 10 s")


@pytest.mark.parametrize(
    ("k", "expected"), [(1, "best merge 0.400 · best expert 0.700"), (2, "hypervolume 0.")]
)
@pytest.mark.usefixtures("every_line")
def test_merges_and_experts_are_told_apart(
    capsys: pytest.CaptureFixture[str], k: int, expected: str
) -> None:
    progress = SearchProgress()
    progress.began(replace(STUDY, objectives=objectives(k)))
    for number, (origin, value) in enumerate(
        {"base": 0.1, "expert:a": 0.7, "uniform": 0.6, "search": 0.4}.items()
    ):
        values = (value, 1 - value)[:k]
        progress.told(replace(TRIAL, number=number, origin=origin, values=values))
    assert expected in capsys.readouterr().err.splitlines()[-1]
