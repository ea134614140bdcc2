"""Python that task YAML names does not run unless the suite allows it, whatever points to it.

Folders of tasks, groups, tags and includes are drawn at random. lm-eval itself, on a copy of the
folder, tells whether naming a task of it runs the code; then the suite must be refused.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from lm_eval.tasks import TaskManager

from evomerge.errors import EvaluationError
from evomerge.evaluation import Suite

from .tiny_tasks import metrics_of

TASK = """dataset_path: json
test_split: test
output_type: multiple_choice
doc_to_choice: ["a", "b"]
metric_list: [{metric: acc}]
"""
PROMPT = "doc_to_text: '{{q}}'\ndoc_to_target: 0\n"
CODE = (
    "doc_to_text: !function canary.text\ndoc_to_target: 0\n",
    "doc_to_text: '{{q}}'\ndoc_to_target: !function canary.target\n",
    PROMPT + "process_docs: !function canary.docs\n",
    PROMPT + "process_results: !function canary.results\n",
    PROMPT + "fewshot_config: {sampler: first_n, process_docs: !function canary.docs}\n",
    PROMPT + "fewshot_config: {samples: !function canary.samples}\n",
    PROMPT
    + "filter_list: [{name: f, filter: [{function: custom, filter_fn: !function canary.f}]}]\n",
    PROMPT + "generation_kwargs: {until: [!function canary.text]}\n",
    PROMPT + "custom_dataset: !function canary.data\n",
    PROMPT + "metadata: {? !function canary.text : 1}\n",
    PROMPT + "class: !function canary.Task\n",
    "%TAG ! !fun\n---\n" + PROMPT + "description: !ction canary.text\n",
)
CANARY = """
from pathlib import Path
(Path(__file__).parent / "ran").touch()
text = lambda doc: "a"
target = lambda doc: 0
docs = lambda docs: docs
results = lambda doc, results: {"acc": 1}
samples = lambda: [{"q": "a"}]
f = lambda resps, docs: resps
"""


class Folder:
    """Writes one random folder."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.rng, self.names = path, random.Random(seed), list[str]()
        path.mkdir()
        (path / "canary.py").write_text(CANARY)
        for i in range(self.rng.randint(1, 3)):
            self.task(f"plain{i}", TASK + PROMPT)
        for i in range(self.rng.randint(1, 2)):
            self.coded(f"coded{i}")
        for i in range(self.rng.randint(0, 4)):
            self.group(f"group{i}")

    def task(self, name: str, text: str) -> None:
        head, mark, body = text.rpartition("---\n")  # a %TAG line comes first
        tag = self.rng.choice(["", "", f"tag: tag{self.rng.randrange(2)}\n"])
        (self.path / f"{name}.yaml").write_text(f"{head}{mark}task: {name}\n{tag}{body}")
        self.names += [name, *([tag.split()[1]] if tag else [])]

    def coded(self, name: str) -> None:
        """A task with code, its own or included by one of the ways there are."""
        code = self.rng.choice(CODE)
        head, mark, body = code.rpartition("---\n")
        whole = head + mark + TASK + body
        way = self.rng.randrange(6)
        if way == 0:
            return self.task(name, whole)
        (self.path / "base").write_text(whole)
        (self.path / "between").write_text("include: base\nmetadata: {version: 1}\n")
        (self.path / "harmless").write_text("metadata: {version: 2}\n")
        include = (
            "include: base\n",
            "include: [harmless, between]\n",
            "<<: {include: base}\n",
            "include: harmless\ninclude: between\n",
            f"include: {self.path / 'between'}\n",
        )[way - 1]
        return self.task(name, include)

    def member(self, depth: int = 0) -> str:
        name = self.rng.choice(self.names)
        key = "group" if name.startswith("group") else "task"
        nested = (
            f"{{group: in{self.rng.randrange(99)}, task: [{self.member(depth + 1)}]}}"
            if (depth < 2)
            else name
        )
        return self.rng.choice([
            name,
            f"{{{key}: {name}}}",
            f"{{{key}: {name}, dataset_path: json}}",
            f"{{{key}: {name}, dataset_path: json, num_fewshot: 0}}",
            f"{{task: own{self.rng.randrange(99)}, dataset_path: json, test_split: test, "
            "doc_to_text: '{{q}}', doc_to_target: '{{q}}', metric_list: [{metric: exact_match}]}",
            nested,
            nested,
        ])  # fmt: skip

    def group(self, name: str) -> None:
        members = ", ".join(self.member() for _ in range(self.rng.randint(1, 2)))
        own = self.rng.choice(["", "", "num_fewshot: 0\n", "dataset_path: json\n"])
        text = f"group: {name}\n{own}task: [{members}]\n"
        if self.rng.random() < 0.3:
            (self.path / f"{name}_base").write_text(text)
            text = f"include: {name}_base\n"
        (self.path / f"{name}.yaml").write_text(text)
        self.names.append(name)


@pytest.fixture(autouse=True)
def _small_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One dataset in memory for every task, no output, and no names of Python's own."""
    data = datasets.DatasetDict({"test": datasets.Dataset.from_list([{"q": c} for c in "abcd"])})
    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", lambda *_, **__: data)
    monkeypatch.setattr("evomerge.evaluation.index.builtin_index", dict)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def runs_in_lm_eval(folder: Path, name: str) -> bool:
    """Whether lm-eval, left to itself, imports the code."""
    with contextlib.suppress(Exception):  # what matters is what it ran before
        TaskManager(include_path=str(folder), include_defaults=False).load([name])
    return (folder / "ran").exists()


def faults_of(folder: Path, name: str) -> list[str]:
    try:
        metrics_of([Suite("mine", (name,), include_path=folder, splits={"search": 1.0})])
    except EvaluationError as err:
        return str(err).splitlines()
    return []


def test_code_never_runs_and_is_refused_in_a_line_wherever_lm_eval_would_run_it(tmp_path):
    n_run = n_good = 0
    for seed in range(70):
        folder = Folder(tmp_path / f"of{seed}", seed)
        for name in dict.fromkeys(folder.rng.sample(folder.names, min(2, len(folder.names)))):
            faults = faults_of(folder.path, name)
            assert not (folder.path / "ran").exists(), (seed, name)
            copy = shutil.copytree(folder.path, tmp_path / f"copy{seed}{name}")
            for path in copy.iterdir():
                path.write_text(path.read_text().replace(str(folder.path), str(copy)))
            is_run = runs_in_lm_eval(copy, name)
            refused = [line for line in faults if "would run code (" in line]
            assert bool(refused) >= is_run, (seed, name, faults)
            assert not refused or len(refused) == len(faults), (seed, name, faults)
            n_run, n_good = n_run + is_run, n_good + (not faults)
    assert n_run > 30
    assert n_good > 10


@pytest.fixture
def write(tmp_path: Path):
    """Write task files into one folder; the first names what is asked for."""

    def write(**files: str) -> Path:
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        (folder / "canary.py").write_text(CANARY)
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        return folder

    return write


def test_a_member_with_data_of_its_own_may_still_be_another_task(write):
    coded = f"task: inner\n{TASK}{CODE[0]}"
    folder = write(g="group: g\ntask:\n- {task: inner, dataset_path: json}\n", inner=coded)
    (fault,) = faults_of(folder, "g")
    assert fault == (
        "mine.tasks: task 'inner' would run code (!function canary.text in "
        f"{folder / 'inner.yaml'}); set allow_code: true if you trust it"
    )
    assert not (folder / "ran").exists()


def test_code_in_tasks_that_nobody_asks_for_is_no_fault(write):
    folder = write(plain=f"task: plain\n{TASK}{PROMPT}", coded=f"task: coded\n{TASK}{CODE[0]}")
    assert faults_of(folder, "plain") == []
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("metric_list: [{metric: acc}, {metric: ./canary.py}]", "'./canary.py' is no metric of"),
        ("metric_list: [./canary.py]", "'./canary.py' is no metric of"),
        ("dataset_path: pandas", "may unpickle code"),
        ("unsafe_code: false", "unsafe_code: false could run generated code unasked"),
        ("metadata: {tokenizer: ./model}", "tokenizer: './model' could run the code of a"),
        ("dataset_kwargs: {trust_remote_code: true}", "trust_remote_code: True could run the code"),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_settings_that_run_code_are_refused_at_any_depth(write, member, expected, depth):
    plain, task = f"task: plain\n{TASK}{PROMPT}", f"{{task: plain, {member}}}"
    groups = [
        f"group: g\n{member}\ntask: [plain]\n",
        f"group: g\ntask: [{task}]\n",
        f"group: g\ntask: [{{group: inside, task: [{task}]}}]\n",
    ]
    (fault,) = faults_of(write(plain=plain, g=groups[depth]), "g")
    assert fault.startswith("mine.tasks[0]: task 'g': ")
    assert expected in fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [*a]", "an alias contains itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply|too deep|exceeded"),
        ("z0: &z0 [x, x]\n" + "".join(
            f"z{i}: &z{i} [*z{i - 1}, *z{i - 1}]\n" for i in range(1, 40)), "more than 1000000"),
        ("when: 2020-13-45", "month must be in 1..12"),
    ],
)  # fmt: skip
def test_task_files_that_no_reader_should_follow_are_named(write, text, expected):
    faults = faults_of(write(one=f"task: one\n{TASK}{PROMPT}{text}\n"), "one")
    assert re.search(f"cannot read .*one.yaml: .*({expected})", faults[-1])
    assert all("bug" not in fault for fault in faults)


@pytest.mark.parametrize("name", ["5", "null", "2020-01-01"])
def test_names_that_are_no_text_are_explained(write, name):
    odd = f"task: {name}\n{TASK}{PROMPT}"
    (fault,) = faults_of(write(odd=odd, plain=f"task: plain\n{TASK}{PROMPT}"), "plain")
    assert "is named by a number, a date or nothing" in fault
