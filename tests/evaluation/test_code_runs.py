"""Code that models write passes its tests or not, and reaches nothing of the machine it runs on."""

from __future__ import annotations

import json
import os
import tempfile

import pytest

from evomerge.evaluation import PreparedSuites, Suite, TaskCatalogue
from evomerge.evaluation.code_runs import Runs, _not_confined
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.scored_items import AnsweredItem

from .tiny_tasks import NAMED, write_task

ADD = "def add(a, b):\n"
PROBLEM = {"start": ADD, "test": "assert add(2, 3) == 5"}
TEMPLATE = "{{doc.start}}{{answer}}\n{{doc.test}}\n"


def passed(*answers: str, **keys: object) -> list[float]:
    """Run answers with one test, as items of a task."""
    runs = Runs(TEMPLATE, **{"parallel": 4, **keys})  # type: ignore[arg-type]
    items = [AnsweredItem("t", i, PROBLEM, ADD, (a,), None) for i, a in enumerate(answers)]
    return [one.value for one in runs.scores("passes", items)]


def test_an_answer_passes_if_it_comes_to_its_end():
    assert passed(
        "    return a + b",
        "    return a - b",
        "    return a +",
        "    while True: pass",
        "    x = bytearray(1 << 31); return a + b",
        "    raise SystemExit(0)",
        "    import os; os._exit(0)",
        "    print('5'); input()",
        confine="limits",
        seconds=1,
    ) == [1, 0, 0, 0, 0, 0, 0, 0]


def test_folders_that_code_makes_are_gone_however_deep_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = "    import os\n    for _ in range(1500): os.mkdir('a'); os.chdir('a')\n    return a + b"
    emptied = "    import os, shutil\n    shutil.rmtree(os.getcwd())\n    return a + b"
    assert passed(deep, emptied, confine="limits") == [1, 1]
    assert list(tmp_path.iterdir()) == []


def test_answers_of_one_item_count_in_part():
    item = AnsweredItem("t", 0, PROBLEM, ADD, (["    return a + b", "    return 0"],), None)
    (score,) = Runs(TEMPLATE, confine="limits").scores("passes", [item])
    assert score.value == 0.5


@pytest.mark.skipif(_not_confined() is not None, reason="this system cannot confine code")
def test_confined_code_writes_and_reaches_nothing_outside_its_folder(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("x")
    forbidden = [
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(kept)!r}, 'a')",
        f"os.truncate({str(kept)!r}, 0)",
        f"os.remove({str(kept)!r})",
        f"os.rename({str(kept)!r}, 'mine')",
        f"os.mkdir({str(tmp_path / 'folder')!r})",
        f"os.symlink('x', {str(tmp_path / 'link')!r})",
        f"os.chmod({str(kept)!r}, 0)",
        "socket.socket()",
        "os.fork()",
        "subprocess.run(['true'])",
        f"os.kill({os.getpid()}, 0)",
        f"os.setpriority(os.PRIO_PROCESS, {os.getpid()}, os.getpriority(os.PRIO_PROCESS, 0))",
        f"os.sched_setaffinity({os.getpid()}, os.sched_getaffinity(0))",
        f"resource.prlimit({os.getpid()}, resource.RLIMIT_CORE)",
    ]
    refused = (
        "    import os, resource, socket, subprocess\n"
        "    try: {}\n    except PermissionError: return a + b"
    )
    allowed = (
        "    import os, threading, tempfile\n    assert 'JUDGE_KEY' not in os.environ\n"
        "    with tempfile.TemporaryFile('w') as file: file.write('x')\n"
        "    open('y', 'w').close(); import resource; resource.getrlimit(resource.RLIMIT_CORE)\n"
        "    thread = threading.Thread(target=print); thread.start(); thread.join()\n"
        "    return a + b"
    )
    found = passed(*map(refused.format, forbidden), allowed)
    assert dict(zip([*forbidden, "allowed"], found, strict=True)) == dict.fromkeys(
        [*forbidden, "allowed"], 1.0
    )
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]
    assert kept.read_text() == "x"
    assert kept.stat().st_mode & 0o400


def test_a_machine_that_cannot_confine_code_is_not_asked_to(monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.code_runs._not_confined", lambda: "no Landlock")
    (fault,) = Runs("x").faults()
    assert str(fault) == (
        "confine: cannot keep code from writing elsewhere and from the network here: no Landlock; "
        "run in a container, and set confine: limits"
    )
    assert not list(Runs("x", confine="limits").faults())


def test_a_task_of_functions_has_a_share_that_passes(empty_folder, model, tokenizer):
    """The gold answers, given as answers, all pass; those of a random model do not."""
    rows = [
        {
            "signature": f"def f{n}(x):",
            "body": f"    return x + {n}",
            "test": f"assert f{n}(1) == {n + 1}",
        }
        for n in range(3)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (empty_folder / "data" / "functions.jsonl").write_text(text)
    write_task(
        empty_folder,
        "functions",
        dataset_kwargs={"data_files": dict.fromkeys(NAMED, "data/functions.jsonl")},
        doc_to_text="{{signature}}\n",
        doc_to_target="{{body}}",
    )
    code = "{{doc.signature}}\n{{answer}}\n{{doc.test}}"
    metric = OwnMetric(runs=Runs(code, parallel=2, confine="limits"))
    suite = Suite(
        "own", ("functions",), empty_folder, NAMED, allow_code=True, metrics={"passes": metric}
    )
    TaskCatalogue.of([suite])
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    assert prepared.score().metrics["functions"]["passes"].value == 0.0
    (task,) = prepared.tasks
    docs = [
        AnsweredItem("functions", item.row, item.doc, "", (item.doc["body"],), None)
        for item in task.items
    ]
    assert [one.value for one in metric.scores("passes", docs)] == [1.0, 1.0, 1.0]
