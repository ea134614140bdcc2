"""A judge is asked once per answer, patiently; its noise is shown, and its key is not."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from dataclasses import replace

import pytest

from evomerge.errors import EvaluationError
from evomerge.evaluation import PreparedSuites, Suite, TaskCatalogue, endpoint, judge
from evomerge.evaluation.judge import Judge
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.score_cache import ScoreCache
from evomerge.evaluation.scored_items import AnsweredItem

from .stand_in_judge import StandIn, judge_server
from .tiny_tasks import NAMED

KEY = "sk-very-secret-0123456789"
PROMPT = "Q: {{doc.a}}|{{prompt}}|{{target}}\nA: {{answer}}\nGrade from 1 to 5 as [[grade]]."
ITEMS = [
    AnsweredItem("t", row, {"a": "x"}, "how?", (text,), "well")
    for row, text in enumerate(("one", "two two", "one", "three three three"))
]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setattr(judge, "_replies", {})
    monkeypatch.setattr(endpoint, "_WAITS_S", (0.0, 0.0))


@pytest.fixture
def server():
    """Grades an answer by the number of its words."""
    with judge_server(lambda prompt: f"Well. [[1]]? No: [[{words(prompt)}]]") as stand_in:
        yield stand_in


def words(prompt: str) -> int:
    return len(prompt.split("A: ")[1].partition("\n")[0].split())


def asking(server: StandIn, **keys) -> Judge:
    return Judge(server.url, "grader", PROMPT, (0, 5), **{"api_key_env": "JUDGE_KEY", **keys})


def test_verdicts_are_scores_and_equal_questions_are_asked_once(server, monkeypatch):
    scores = asking(server).scores("quality", ITEMS)
    assert [one.value for one in scores] == [1, 2, 1, 3]
    assert [one.noise for one in scores] == [None] * 4
    assert len(server.asked) == 3
    assert "Q: x|how?|well\nA: two two\n" in " ".join(server.asked)
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert {body["model"] for body in server.bodies} == {"grader"}
    assert {body["temperature"] for body in server.bodies} == {0}
    (verdict,) = scores[1].verdicts
    assert (verdict.task, verdict.item, verdict.answer) == ("t", 1, "two two")
    assert (verdict.replies, verdict.verdicts) == (("Well. [[1]]? No: [[2]]",), (2.0,))
    monkeypatch.setattr(judge, "_replies", {})  # as in another process
    assert [one.value for one in asking(server).scores("quality", ITEMS)] == [1, 2, 1, 3]
    assert len(server.asked) == 3
    asking(server, options={}).scores("quality", ITEMS[:1])  # another question
    assert len(server.asked) == 4
    assert "temperature" not in server.bodies[-1]


def test_several_samples_show_the_noise(server):
    grades = itertools.cycle((1, 2, 3, 4, 5))
    server.rule = lambda prompt: str(next(grades))  # a number alone is a verdict
    one = asking(server, samples=3, parallel=1)
    (first,) = one.scores("quality", ITEMS[:1])
    assert (first.value, first.noise) == (2.0, statistics.stdev([1, 2, 3]))
    assert "temperature" not in server.bodies[0]
    (more,) = replace(one, samples=5).scores("quality", ITEMS[:1])
    assert more.verdicts[0].verdicts == (1, 2, 3, 4, 5)
    assert len(server.asked) == 5  # three of them were known


def test_a_task_has_the_metric_and_its_noise(server, folder, model, tokenizer, tmp_path):
    server.rule = lambda prompt: f"[[{len(server.asked) % 2 + 2}]]"
    metric = OwnMetric(judge=asking(server, samples=2, parallel=1))
    suite = Suite("own", ("tiny_generate",), folder, NAMED, metrics={"quality": metric})
    names = TaskCatalogue.of([suite]).metrics["tiny_generate"]
    assert names == ("exact_match", "quality", "quality_noise", "gold_bpb")
    assert len(server.asked) == 2  # one item, with its gold answer
    scores = PreparedSuites.of([suite], "search", model, tokenizer).score()
    table = scores.metrics["tiny_generate"]
    assert table["quality"].value == 2.5
    assert table["quality_noise"].value == pytest.approx(statistics.stdev([2, 3]))
    assert {one.item for one in scores.verdicts} == set(range(table["quality"].n))
    cache = ScoreCache(tmp_path / "scores")
    cache.store("ab", scores)
    assert cache.load("ab").verdicts == scores.verdicts
    assert not any(KEY.encode() in f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    assert KEY not in repr(scores)


def test_what_several_filters_ask_is_noted_once(server, folder, model, tokenizer):
    server.rule = lambda _: "[[3]]"
    own = {"quality": OwnMetric(judge=replace(asking(server), prompt="{{doc.a}} {{doc.b}}"))}
    suite = Suite("s", ("tiny_filters",), include_path=folder, splits=NAMED, metrics=own)
    scores = PreparedSuites.of([suite], "search", model, tokenizer).score()
    rows = {item.item for item in scores.items}
    assert {"quality,first", "quality"} <= scores.metrics["tiny_filters"].keys()
    assert sorted(one.item for one in scores.verdicts) == sorted(rows)


def test_what_passes_is_waited_for(server):
    failures = iter([(503, "busy"), (429, "slow down")])
    server.rule = lambda prompt: next(failures, "[[4]]")
    assert asking(server).scores("quality", ITEMS[:1])[0].value == 4
    assert len(server.asked) == 3


def test_a_judge_that_is_down_is_named_and_nothing_said_before_is_lost(server):
    server.rule = lambda prompt: (500, f"no {KEY}") if words(prompt) > 1 else "[[4]]"
    with pytest.raises(EvaluationError) as error:
        asking(server, parallel=1).scores("quality", ITEMS)
    assert str(error.value) == (
        "metric 'quality', task 't', item 1: the judge grader at "
        f"{server.url} gave no reply: HTTP 500 no ***"
    )
    n_asked = len(server.asked)
    server.rule = lambda prompt: "[[5]]"
    scores = asking(server).scores("quality", ITEMS)
    assert [one.value for one in scores] == [4, 5, 4, 5]
    assert len(server.asked) == n_asked + 2


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda prompt: (401, f"wrong key {KEY}"), "HTTP 401 wrong key \\*\\*\\*"),
        (lambda prompt: (307, ""), "HTTP 307"),  # the key goes to no other host
        (lambda prompt: (200, "{}"), "expected a chat completion, got {}"),
        (lambda prompt: (200, "[" * 9000), "gave no reply: RecursionError"),
        (lambda prompt: 30_000 * "so ", "expected a reply of at most 50000 bytes, got more"),
        (lambda prompt: "I cannot say.", "has no verdict .*: 'I cannot say.', 3 times"),
        (lambda prompt: "[[9]]", "expected a verdict from 0 to 5, got 9, 3 times"),
    ],
)
def test_a_reply_that_is_none_is_an_error(server, rule, reason, monkeypatch):
    monkeypatch.setattr(endpoint, "_MOST_BYTES", 50_000)
    server.rule = rule
    with pytest.raises(EvaluationError, match=reason) as error:
        asking(server).scores("quality", ITEMS[:1])
    assert KEY not in str(error.value)
    assert len(server.asked) == (1 if "HTTP" in reason else 3)


def test_a_reply_that_never_ends_takes_too_long(monkeypatch):
    class Dripping(contextlib.nullcontext):
        def read1(self, n: int) -> bytes:
            return b" "

        def __enter__(self):
            return self

    class Opener:
        def open(self, request, timeout):
            return Dripping()

    monkeypatch.setattr(endpoint, "_opener", Opener())
    with pytest.raises(EvaluationError, match="gave no reply: it took too long"):
        Judge("http://x/v1", "grader", PROMPT, (0, 5), timeout=1e-3).scores("quality", ITEMS[:1])


def test_nobody_listens(server, monkeypatch):
    gone = replace(asking(server), url="http://127.0.0.1:9/v1", timeout=5)
    with pytest.raises(EvaluationError, match="gave no reply: ConnectionRefusedError"):
        gone.scores("quality", ITEMS[:1])
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(EvaluationError, match="in the environment variable JUDGE_KEY"):
        asking(server).scores("quality", ITEMS[:1])
    assert server.asked == []


def test_a_verdict_may_be_written_otherwise(server):
    server.rule = lambda prompt: "Helpful: 2\nGrade: 4 of 5"
    one = asking(server, verdict=r"Grade: (\d)")
    assert one.scores("quality", ITEMS[:1])[0].value == 4
