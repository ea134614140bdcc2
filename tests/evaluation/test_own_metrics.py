"""Metrics of one's own are metrics of their tasks; what is wrong is found before a run."""

from __future__ import annotations

import math
import pickle
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.errors import EvaluationError
from evomerge.evaluation import PreparedSuites, Suite, TaskCatalogue
from evomerge.evaluation.code_runs import Runs
from evomerge.evaluation.content import metric_digests
from evomerge.evaluation.harness import most_texts, with_samples
from evomerge.evaluation.judge import Judge
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.own_metrics import OwnMetric

from .test_checks import faults_of
from .tiny_tasks import NAMED

METRICS = """
from dataclasses import dataclass

@dataclass
class Rule:
    least: int = 0

def words(doc, answers, target):
    doc.clear(), answers.append("x")  # copies
    return max(Rule().least, len(answers[0].split()))

def sure(doc, answers, target):
    return answers[target][0] - max(score for i, (score, _) in enumerate(answers) if i != target)

def fussy(doc, answers, target):
    return 1 if answers[0] == target else [][0]

def broken(doc, answers, target):
    raise RuntimeError("no such thing")

def nothing(doc, answers, target):
    return None

def nan(doc, answers, target):
    return float("nan")

def huge(doc, answers, target):
    return 10**400

def leaving(doc, answers, target):
    raise SystemExit(0)

number = 3
"""
JUDGE = Judge("http://localhost:1/v1", "m", "{{answer}}", (1, 5))


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    file = tmp_path / "metrics.py"
    file.write_text(METRICS)
    return file


def of_file(file: Path, name: str | None = None, **keys: object) -> OwnMetric:
    return OwnMetric(file=str(file), name=name, **keys)  # type: ignore[arg-type]


def suite_of(folder: Path, *tasks: str, allow_code: bool = True, **metrics: OwnMetric) -> Suite:
    return Suite(
        "own",
        tasks,
        include_path=folder,
        splits=NAMED,
        allow_code=allow_code,
        metrics=metrics,
    )


def test_a_function_scores_every_item_beside_the_task_and_after_each_filter(
    folder, metrics, model, tokenizer
):
    suite = suite_of(folder, "tiny_filters", words=of_file(metrics))
    catalogue = TaskCatalogue.of([suite], LanguageModel.without_parameters(tokenizer, model.config))
    assert catalogue.metrics["tiny_filters"][-3:] == ("words,first", "words", "gold_bpb")
    prepared = PreparedSuites.of([suite], "search", model, tokenizer, rungs=(0.5,))
    part, scores = list(prepared.looks())
    table = scores.metrics["tiny_filters"]
    for label, name in (("words,first", "first"), ("words", "none")):
        said = [item.requests[0].filtered_resps[name] for item in prepared.tasks[0].items]
        counts = [len(text.split()) for text in said]
        assert table[label].value == statistics.fmean(counts)
        assert table[label].n == len(counts)
        error = statistics.stdev(counts) / math.sqrt(len(counts))
        assert table[label].stderr == pytest.approx(error)
        assert [one.score for one in scores.items if one.metric == label] == counts
    assert {one.metric for one in part.items} == {one.metric for one in scores.items}
    assert pickle.loads(pickle.dumps(prepared.tasks[0].own)) == suite.metrics
    task = prepared.tasks[0].task
    assert most_texts(task) == 2  # what a judge would be asked about, of each item
    with_samples(task, 3)
    assert most_texts(task) == 6


def test_a_function_sees_the_likelihoods_of_choices(folder, metrics, model, tokenizer):
    suite = suite_of(folder, "tiny_choice", sure=of_file(metrics, higher_is_better=False))
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    scores = prepared.score()
    margins = []
    for item in prepared.tasks[0].items:
        likely = [request.resps[0][0] for request in item.requests[:4]]
        right = likely.pop(item.doc["gold"])
        margins.append(right - max(likely))
    assert [one.score for one in scores.items if one.metric == "sure"] == margins
    (_, label, direction) = TaskCatalogue.of([suite]).measures[-1]
    assert (label, direction) == ("sure", "minimize")


def test_scores_are_known_again_by_the_code_of_their_metrics(folder, metrics, model, tokenizer):
    suite = suite_of(folder, "tiny_generate", words=of_file(metrics))

    def digests() -> tuple[str | None, dict[str, str]]:
        prepared = PreparedSuites.of([suite], "search", model, tokenizer)
        return prepared.digest, metric_digests(TaskCatalogue.of([suite]), ["search"])

    before = digests()
    assert before == digests()
    running = PreparedSuites.of([suite], "search", model, tokenizer)
    metrics.write_text(METRICS.replace("least: int = 0", "least: int = 9"))
    assert running.score().metrics["tiny_generate"]["words"].value < 9.0
    assert running.digest == before[0]  # what runs goes on with what it has read
    after = digests()
    assert before[0] != after[0]
    assert before[1].keys() == after[1].keys() == {"words"}
    assert before[1] != after[1]
    scores = PreparedSuites.of([suite], "search", model, tokenizer).score()
    assert scores.metrics["tiny_generate"]["words"].value == 9.0  # the new code counts


def test_scores_are_not_those_of_metrics_that_were_called_otherwise(folder, model, tokenizer):
    ran, failed = OwnMetric(runs=Runs("pass")), OwnMetric(runs=Runs("1 / 0"))

    def digest(**own: OwnMetric) -> str | None:
        suite = suite_of(folder, "tiny_generate", **own)
        return PreparedSuites.of([suite], "search", model, tokenizer).digest

    assert len({digest(a=ran, b=failed), digest(b=ran, a=failed), digest(a=ran, c=failed)}) == 3


def test_metrics_of_two_suites_may_be_called_alike(folder, metrics):
    other = metrics.with_name("other.py")
    other.write_text("def words(doc, answers, target):\n    return 1\n")
    one = suite_of(folder, "tiny_generate", words=of_file(metrics))
    two = replace(suite_of(folder, "tiny_choice", words=of_file(other)), name="two")
    before = metric_digests(TaskCatalogue.of([one, two]), ["search"])
    for file in (metrics, other):
        file.write_text(f"{file.read_text()}# new\n")
        after = metric_digests(TaskCatalogue.of([one, two]), ["search"])
        assert after != before
        before = after


def test_a_metric_that_fails_names_itself_the_task_and_the_item(folder, metrics, model, tokenizer):
    suite = suite_of(folder, "tiny_generate", fussy=of_file(metrics))
    TaskCatalogue.of([suite])  # the gold answer is right
    with pytest.raises(EvaluationError) as error:
        PreparedSuites.of([suite], "search", model, tokenizer).score()
    found = "metric 'fussy', task 'tiny_generate', item 0: the function raised IndexError: list"
    assert str(error.value).startswith(found)


def test_every_fault_is_found_at_once(folder, metrics, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    (folder / "syntax.py").write_text("def x(:\n")
    (folder / "script.py").write_text("raise SystemExit('usage: script')\n")
    wrong = {
        "acc": of_file(metrics, "words", tasks=("tiny_choice",)),
        "gone": of_file(folder / "none.py"),
        "typo": of_file(metrics, "wrods"),
        "number": of_file(metrics),
        "broken": of_file(metrics, tasks=("tiny_generate",)),
        "nothing": of_file(metrics, tasks=("tiny_generate",)),
        "nan": of_file(metrics, tasks=("tiny_generate",)),
        "huge": of_file(metrics, tasks=("tiny_generate",)),
        "leaving": of_file(metrics, tasks=("tiny_generate",)),
        "syntax": of_file(folder / "syntax.py"),
        "script": of_file(folder / "script.py"),
        "absent": OwnMetric(entry_point="absent"),
        "lost": of_file(metrics, "words", tasks=("tiny_chioce",)),
        "judged": OwnMetric(
            judge=Judge(
                "ftp://x", "m", "{{answer}}", (5, 1), "NO_KEY", 1, verdict="(a", options={"n": 2}
            )
        ),
        "noisy": OwnMetric(judge=replace(JUDGE, samples=2), tasks=()),
        "noisy_noise": of_file(metrics, "words", tasks=("tiny_generate",)),
        "secret": OwnMetric(judge=Judge("https://me:pw@x/v1", "m", "", (1, 5)), tasks=()),
        "template": OwnMetric(runs=Runs("{{nobody}}"), tasks=("tiny_generate",)),
    }
    found = faults_of(suite_of(folder, "tiny_generate", "tiny_choice", **wrong))
    gold = "(called with the gold answer, before anything is scored)"
    item = "task 'tiny_generate', item 0"
    expected = [
        "acc: task 'tiny_choice' has a metric 'acc' already; call this one otherwise",
        "noisy_noise: task 'tiny_generate' has a metric 'noisy_noise' already; call this one",
        f"gone.file: expected a Python file, found none at {folder / 'none.py'}",
        f"typo.name: expected a function 'wrods' in {metrics}, which has words, sure, fussy,",
        "number.name: expected a function behind 'number', got 3",
        f"broken: metric 'broken', {item}: the function raised RuntimeError: no such thing {gold}",
        f"nothing: metric 'nothing', {item}: expected a finite number, got None {gold}",
        f"nan: metric 'nan', {item}: expected a finite number, got nan {gold}",
        f"huge: metric 'huge', {item}: expected a finite number, got 1000",
        f"leaving: metric 'leaving', {item}: the function raised SystemExit: 0 {gold}",
        f"script.file: cannot run {folder / 'script.py'}: SystemExit: usage: script",
        f"syntax.file: cannot run {folder / 'syntax.py'}: SyntaxError: ",
        "absent.entry_point: expected an entry point of the group evomerge.metrics, got 'absent'",
        "lost.tasks: expected a task or group out of tiny_generate, tiny_choice, got 'tiny_chioce'",
        "judged.judge.url: expected http:// or https://, got 'ftp://x'",
        "judged.judge.scale: expected the lowest verdict and the highest, got [5, 1]",
        "judged.judge.api_key_env: expected a key in the environment variable 'NO_KEY', found none",
        "judged.judge.verdict: expected a regular expression, got one with ",
        "judged.judge.options: expected other keys than n, which are set already",
        "judged: expected tasks that generate text, got 'tiny_choice' (multiple_choice); say which",
        "secret.judge.url: expected a URL without a password; leave it out, or name the",
        f"template: metric 'template', {item}: the template of code fails: 'nobody' is undefined",
    ]
    for line in expected:
        assert [one for one in found if one.startswith(f"own.metrics.{line}")], (line, found)
    assert len(found) == len(expected)
    assert not any("pw@" in one for one in found)


def test_a_function_that_never_returns_is_a_fault(folder, metrics):
    metrics.write_text("import time\ndef words(doc, answers, target):\n    time.sleep(9)\n")
    slow = OwnMetric(file=str(metrics), timeout=0.2)
    (fault,) = faults_of(suite_of(folder, "tiny_generate", words=slow))
    assert "item 0: expected a number within 0.2 s, got none yet (called with the gold" in fault
    assert fault.endswith("set timeout if it takes longer")


def test_a_function_that_fails_is_called_once(folder, metrics):
    lines = ["def words(doc, answers, target):", "    open(__file__ + '.calls', 'a').write('x')"]
    metrics.write_text("\n".join([*lines, "    raise RuntimeError('no')", ""]))
    (fault,) = faults_of(suite_of(folder, "tiny_generate", words=of_file(metrics)))
    assert "the function raised RuntimeError: no" in fault
    assert metrics.with_name(f"{metrics.name}.calls").read_text() == "x"


def test_a_function_may_want_the_main_thread_as_alarms_do(folder, metrics):
    alarm = "signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGALRM))"
    metrics.write_text(
        f"import signal\ndef words(doc, answers, target):\n    {alarm}\n    return 1.0"
    )
    TaskCatalogue.of([suite_of(folder, "tiny_generate", words=of_file(metrics))])


@pytest.mark.parametrize("code", ["{{answer}} (", "{{answer}} = 1"])
def test_a_template_by_which_right_answers_fail_is_pointed_out(folder, caplog, code):
    runs = OwnMetric(runs=Runs(code, confine="limits"))
    TaskCatalogue.of([suite_of(folder, "tiny_generate", passes=runs)])
    found = "metric 'passes', task 'tiny_generate', item 0: what the task holds for right does not"
    assert (found in caplog.text) == code.endswith("(")


def test_code_runs_only_where_it_is_allowed(folder, metrics):
    metrics.write_text("import pathlib\n(pathlib.Path(__file__).parent / 'ran').touch()\n")
    own = {"words": of_file(metrics), "passes": OwnMetric(runs=Runs("{{answer}}"))}
    file, code = faults_of(suite_of(folder, "tiny_generate", allow_code=False, **own))
    assert f"own.metrics.words.file: would run code ({metrics}); set allow_code: true" in file
    assert "own.metrics.passes.runs: would run code that models write; set allow_code: true" in code
    assert not (metrics.parent / "ran").exists()


def test_an_installed_package_brings_metrics(folder, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "mine-0.1.dist-info").mkdir(parents=True)
    (site / "mine-0.1.dist-info" / "METADATA").write_text("Name: mine\nVersion: 0.1\n")
    (site / "mine-0.1.dist-info" / "entry_points.txt").write_text(
        "[evomerge.metrics]\nbrevity = mine_metrics:brevity\n"
    )
    (site / "mine_metrics.py").write_text("brevity = lambda doc, answers, target: 1.5\n")
    monkeypatch.syspath_prepend(site)
    suite = suite_of(folder, "tiny_group", allow_code=False, short=OwnMetric(entry_point="brevity"))
    try:
        catalogue = TaskCatalogue.of([suite])
        assert "short" in catalogue.metrics["tiny_choice"]
        assert "short" in catalogue.metrics["tiny_fewshot"]
        before = metric_digests(catalogue, ["search"])
        (site / "mine_metrics.py").write_text("brevity = lambda doc, answers, target: 2.5\n")
        assert before != metric_digests(catalogue, ["search"])
    finally:
        sys.modules.pop("mine_metrics", None)


@pytest.mark.parametrize(
    ("keys", "got"),
    [({}, "none"), ({"file": "x.py", "judge": JUDGE}, "file and judge"), ({"name": "x"}, "none")],
)
def test_a_metric_is_made_in_one_way(keys, got):
    with pytest.raises(ValueError, match=f"expected one of file, .*, got {got}"):
        OwnMetric(**keys)
    with pytest.raises(ValueError, match="timeout, of a function, only beside file or entry"):
        OwnMetric(judge=JUDGE, timeout=9)
