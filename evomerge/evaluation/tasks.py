"""Loading the tasks of suites: from names to open datasets, with every fault collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from evomerge.errors import EvaluationError
from evomerge.evaluation.harness import Group, Task, TaskManager
from evomerge.evaluation.index import is_public, leaf_tasks, open_index
from evomerge.evaluation.suite import Suite, raise_faults

__all__ = ["LoadedSuite", "load_suite", "name_clashes", "why"]


@dataclass(frozen=True)
class LoadedSuite:
    """A suite with its tasks read and its datasets open.

    Attributes:
        suite: Where it came from.
        tasks: lm-eval tasks by name, groups and tags expanded.
        groups: lm-eval groups by name.
        own_splits: ``test_split`` of each task as its author wrote it; ``None`` where the task is
            evaluated on its ``validation_split``.
        public: Tasks that ship with lm-eval.
    """

    suite: Suite
    tasks: Mapping[str, Task]
    groups: Mapping[str, Group]
    own_splits: Mapping[str, str | None]
    public: frozenset[str]


def load_suite(suite: Suite) -> LoadedSuite:
    """Load every task of a suite, and set its number of examples as ``simple_evaluate`` does.

    Raises:
        EvaluationError: Every fault found, one per line.
    """
    raise_faults(suite.faults())
    manager = open_index(suite)
    try:
        loaded = manager.load(list(suite.tasks))
    except Exception as err:  # task code, templates and dataset readers raise anything
        faults = _load_faults(suite, manager) or [f"evaluator {suite.name!r}: {_one_line(err)}"]
        raise_faults(faults)
        raise
    raise_faults([fault for task in loaded["tasks"].values() for fault in _barred(suite, task)])
    for task in loaded["tasks"].values():
        _set_fewshot(task, suite.num_fewshot)
    own_splits = {name: task.get_config("test_split") for name, task in loaded["tasks"].items()}
    public = frozenset(name for name in own_splits if is_public(manager, name))
    return LoadedSuite(suite, loaded["tasks"], loaded["groups"], own_splits, public)


def name_clashes(loaded: Sequence[LoadedSuite]) -> list[str]:
    """List the task and group names that more than one suite uses, as faults."""
    names = Counter(name for one in loaded for name in [*one.tasks, *one.groups])
    return [
        f"task {name!r} is in more than one evaluator; scores are kept by task name, so keep one"
        for name, count in names.items()
        if count > 1
    ]


def _load_faults(suite: Suite, manager: TaskManager) -> list[str]:
    """Load task by task to find out which ones fail, and why."""
    faults = []
    for name in leaf_tasks(manager, suite.tasks):
        try:
            manager.load([name])
        except Exception as err:
            config = manager.task_index[name].cfg or {}
            faults.append(f"evaluator {suite.name!r}: task {name!r}: {why(err, config)}")
    return faults


def why(err: Exception, config: Mapping[str, object]) -> str:
    """Explain why a task cannot be loaded or prompted, in one line.

    Args:
        err: What lm-eval, the dataset reader, a template or we raised.
        config: The task's config, if it is known, to recognise names of splits.
    """
    if isinstance(err, EvaluationError):
        return str(err)
    if isinstance(err, jinja2.TemplateError):
        return f"a template fails: {' '.join(str(err).split())}"
    if isinstance(err, KeyError) and err.args:
        for key in ("test_split", "validation_split", "training_split", "fewshot_split"):
            if config.get(key) == err.args[0]:
                return f"the dataset has no split {err.args[0]!r} ({key})"
    return _one_line(err)


def _one_line(err: BaseException) -> str:
    """Give the innermost cause: dataset readers wrap it in errors that say nothing."""
    while err.__cause__ is not None:
        err = err.__cause__
    return f"{type(err).__name__}: {' '.join(str(err).split())}"


def _barred(suite: Suite, task: Task) -> list[str]:
    """Tasks that lm-eval itself would refuse to run on this model."""
    where = f"evaluator {suite.name!r}: task {task.task_name!r}"
    faults = []
    if getattr(task, "UNSAFE_CODE", False) and not suite.allow_code:
        faults.append(f"{where} runs generated code; set allow_code: true if that is safe here")
    if getattr(task, "MULTIMODAL", False):
        faults.append(f"{where} needs images or audio; only text tasks can be scored")
    return faults


def _set_fewshot(task: Task, num_fewshot: int | None) -> None:
    """Set the number of examples; a task that fixes it at 0 keeps 0, as in lm-eval."""
    own = task.get_config("num_fewshot")
    if num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
