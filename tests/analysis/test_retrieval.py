"""What answers say about whom to merge, by arithmetic."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from evomerge.analysis.retrieval import TaskAnswers, retrieve

SAID = {  # two prompts: an answer of two tokens, one of one; right are tokens 0, 1, 0
    "base": [[0.25, 0.25, 0.5], [0.25, 0.25, 0.5], [0.5, 0.25, 0.25]],
    "one": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "two": [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
    "same": [[0.25, 0.25, 0.5], [0.25, 0.25, 0.5], [0.5, 0.25, 0.25]],
}
ASKED = TaskAnswers(
    {name: np.array(said, dtype=np.float32) for name, said in SAID.items()},
    right=np.array([0, 1, 0]),
    prompts=np.array([0, 0, 1]),
)
EXPERTS = ("same", "two", "one")


def test_a_fit_is_the_cosine_of_what_is_said_and_what_is_right() -> None:
    (found,) = retrieve("base", EXPERTS, {"task": ASKED}).tasks
    assert (found.task, found.n, found.best) == ("task", 2, "one")
    norm = math.sqrt(2 * (2 * 0.25**2 + 0.5**2) + 0.5**2 + 2 * 0.25**2)
    assert found.fits["base"] == pytest.approx((0.25 + 0.25 + 0.5) / (math.sqrt(3) * norm))
    assert found.fits["one"] == pytest.approx(2 / 3)
    assert found.fits["two"] == pytest.approx(1 / 3)


def test_answers_of_many_tokens_take_no_square_of_them() -> None:
    n = 2_000
    said = np.full((3, n), 1 / n, dtype=np.float32)
    asked = TaskAnswers({"base": said, "one": said}, ASKED.right, ASKED.prompts)
    tracemalloc.start()
    (found,) = retrieve("base", ["one"], {"task": asked}).tasks
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.fits["one"] == pytest.approx(1 / math.sqrt(n))
    assert peak < 8 * n * n / 10


def test_experts_are_taken_by_what_they_add_to_those_before() -> None:
    order = retrieve("base", EXPERTS, {"task": ASKED}).order
    # Base knows 0.25 (geometric mean over an answer's tokens) and 0.5: 0.375 on average.
    assert [one.expert for one in order] == ["one", "two", "same"]
    assert [one.adds for one in order] == pytest.approx([0.75 - 0.375, 1.0 - 0.75, 0.0])


def test_tasks_count_alike_whatever_their_number_of_prompts() -> None:
    short = TaskAnswers(
        {name: said[2:] for name, said in ASKED.said.items()}, ASKED.right[2:], np.array([0])
    )
    first, *_ = retrieve("base", EXPERTS, {"task": ASKED, "short": short}).order
    # Both tasks weigh a half: "one" adds 0.375 to the first alone, "two" 0.25 and 0.5.
    assert first.expert == "two"
    assert first.adds == pytest.approx((0.25 + 0.5) / 2)


def test_experts_are_as_alike_as_their_changes() -> None:
    found = {pair.experts: pair.cosine for pair in retrieve("base", EXPERTS, {"t": ASKED}).pairs}
    change = {name: np.array(SAID[name]) - np.array(SAID["base"]) for name in ("one", "two")}
    norms = np.linalg.norm(change["one"]) * np.linalg.norm(change["two"])
    assert found["two", "one"] == pytest.approx((change["one"] * change["two"]).sum() / norms)
    assert math.isnan(found["same", "one"])
