"""Loading the tasks of suites: from names to open datasets, with every fault collected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import jinja2

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation.harness import (
    GENERATION,
    Group,
    Sampler,
    Task,
    TaskManager,
    known_filters,
    with_samples,
)
from evomerge.evaluation.images import image_barriers
from evomerge.evaluation.index import is_public, leaf_tasks, open_index
from evomerge.evaluation.language_model import is_sampling
from evomerge.evaluation.own_checks import metric_faults, tasks_of
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.suite import Suite

__all__ = ["LoadedSuite", "load_suite", "load_what_loads", "name_clashes", "why"]


# Settings of draws, which greedy answers do not look at.
_OF_DRAWS = ("temperature", "top_p", "top_k", "min_p", "seed")


@dataclass(frozen=True)
class LoadedSuite:
    """A suite with its tasks read and its datasets open.

    Attributes:
        suite: Where it came from.
        tasks: lm-eval tasks by name, groups and tags expanded.
        groups: lm-eval groups by name.
        own_splits: ``test_split`` of each task as its author wrote it; ``None`` where the task is
            evaluated on its ``validation_split``.
        samplers: What draws the examples of each task, as lm-eval made it; tasks that are Python
            classes draw them themselves.
        public: Tasks that ship with lm-eval.
        missing: Names of what the suite asks for that could not be loaded.
    """

    suite: Suite
    tasks: Mapping[str, Task]
    groups: Mapping[str, Group]
    own_splits: Mapping[str, str | None]
    samplers: Mapping[str, Sampler]
    public: frozenset[str]
    missing: frozenset[str] = frozenset()

    def own_metrics(self, task: str) -> dict[str, OwnMetric]:
        """List the metrics of one's own that a task has."""
        return {
            name: own
            for name, own in self.suite.metrics.items()
            if task in tasks_of(own, self.tasks, self.groups)
        }


def load_suite(suite: Suite) -> LoadedSuite:
    """Load every task of a suite, and set its number of examples as ``simple_evaluate`` does.

    Raises:
        EvaluationError: Every fault found, by the keys of the suite.
    """
    loaded, faults = load_what_loads(suite)
    if faults:
        raise EvaluationError(*faults)
    return loaded


def load_what_loads(suite: Suite) -> tuple[LoadedSuite, list[Fault]]:
    """Load the tasks of a suite that can be loaded, so that more faults can be looked for in them.

    Returns:
        The suite, without its groups if some task is missing, and what is wrong, by its keys.

    Raises:
        EvaluationError: The settings of the suite are wrong themselves.
    """
    if wrong := suite.faults():
        raise EvaluationError(*wrong)
    manager, indexed = open_index(suite)
    tasks, groups, faults = _load(suite, manager, indexed)
    for name, task in list(tasks.items()):
        if barred := list(_barred(suite, task)):
            faults += [Fault(suite.path_of(name), f"task {name!r} {text}") for text in barred]
            del tasks[name]
    for name, task in tasks.items():
        _set_fewshot(task, suite.num_fewshot)
        _set_generation(task, suite)
        faults += _generation_faults(name, task, suite)
    if tasks and not any(task.OUTPUT_TYPE == GENERATION for task in tasks.values()):
        faults += _without_generation(suite)
    own_splits = {name: task.get_config("test_split") for name, task in tasks.items()}
    samplers = {name: task.sampler for name, task in tasks.items() if hasattr(task, "sampler")}
    public = frozenset(name for name in own_splits if is_public(manager, name))
    own_faults = list(metric_faults(suite, tasks, groups, is_whole=not faults))
    groups = {} if faults else groups
    asked = {*suite.tasks, *indexed, *leaf_tasks(manager, suite.tasks, {})} if faults else set()
    missing = frozenset(asked - tasks.keys())
    loaded = LoadedSuite(suite, tasks, groups, own_splits, samplers, public, missing)
    return loaded, [*faults, *own_faults]


def _load(
    suite: Suite, manager: TaskManager, indexed: Mapping[str, list[Fault]]
) -> tuple[dict[str, Task], dict[str, Group], list[Fault]]:
    """Load all at once; where that fails, task by task to find out which ones do, and why."""
    faults = [fault for found in indexed.values() for fault in found]
    if not faults:
        try:
            loaded = manager.load(list(suite.tasks))
            return dict(loaded["tasks"]), dict(loaded["groups"]), []
        except Exception as err:  # task code, templates and dataset readers raise anything
            fault = Fault(("tasks",), _one_line(err))
    tasks: dict[str, Task] = {}
    for name in leaf_tasks(manager, suite.tasks, indexed):
        try:
            tasks |= manager.load([name])["tasks"]
        except Exception as err:
            config = manager.task_index[name].cfg or {}
            faults.append(Fault(suite.path_of(name), f"task {name!r}: {why(err, config)}"))
    return tasks, {}, faults or [fault]


def name_clashes(loaded: Sequence[LoadedSuite]) -> list[Fault]:
    """List the task and group names that an earlier suite uses already, as faults of the later."""
    seen: set[str] = set()
    faults = []
    for one in loaded:
        names = {*one.tasks, *one.groups}
        for name in sorted(names & seen):
            text = f"task {name!r} is in more than one evaluator; scores are kept by task name"
            path = one.suite.path_of(name)
            faults.append(Fault((one.suite.name, *path), text, "keep one of them"))
        seen |= names
    return faults


def why(err: Exception, config: Mapping[str, Any]) -> str:
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
        for name in _filters(config) - known_filters():
            nearest = get_close_matches(name, known_filters(), n=1)
            hint = f", nearest: {nearest[0]}" if nearest else ""
            return f"lm-eval has no filter {name!r} (filter_list){hint}"
        for key in ("test_split", "validation_split", "training_split", "fewshot_split"):
            if config.get(key) == err.args[0]:
                return f"the dataset has no split {err.args[0]!r} ({key})"
    return _one_line(err)


def _filters(config: Mapping[str, Any]) -> set[str]:
    """Names of the functions in a task's ``filter_list``."""
    steps = [step for one in config.get("filter_list") or [] for step in one.get("filter") or []]
    return {str(step.get("function")) for step in steps}


def _one_line(err: BaseException) -> str:
    """Give the innermost cause: dataset readers wrap it in errors that say nothing."""
    while err.__cause__ is not None:
        err = err.__cause__
    return f"{type(err).__name__}: {' '.join(str(err).split())}"


def _barred(suite: Suite, task: Task) -> Iterator[str]:
    """Say why lm-eval itself would refuse to run a task on this model, or could not score it."""
    if getattr(task, "UNSAFE_CODE", False) and not suite.allow_code:
        yield "runs generated code; set allow_code: true if that is safe here"
    yield from image_barriers(task)
    for metric, aggregation in task.aggregation().items():
        if aggregation is None:
            yield f"has a metric {metric!r} (metric_list) whose aggregation lm-eval does not know"


def _set_fewshot(task: Task, num_fewshot: int | None) -> None:
    """Set the number of examples; a task that fixes it at 0 keeps 0, as in lm-eval."""
    own = task.get_config("num_fewshot")
    if num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


def _set_generation(task: Task, suite: Suite) -> None:
    """Set how answers are generated, as lm-eval's ``gen_kwargs`` does."""
    if task.OUTPUT_TYPE != GENERATION:
        return
    settings = {**(task.config.generation_kwargs or {}), **suite.generation_kwargs.written}
    task.set_config(key="generation_kwargs", value=settings)
    if suite.repeats is not None:
        with_samples(task, suite.repeats)


def _generation_faults(name: str, task: Task, suite: Suite) -> Iterator[Fault]:
    """What does not go together in how a task's answers are to be generated."""
    if task.OUTPUT_TYPE != GENERATION:
        return
    settings, wanted = task.config.generation_kwargs, suite.generation_kwargs.written
    if is_sampling(settings):
        if not settings.get("temperature") and wanted:
            text = f"expected a temperature above 0 to draw answers with in task {name!r}, got none"
            yield Fault(("generation_kwargs",), text, "set temperature, or do_sample: false")
        return
    text, hint = f"in task {name!r} greedy ones", "set do_sample: true and a temperature"
    for key in _OF_DRAWS:
        if wanted.get(key):
            path = ("generation_kwargs", key)
            yield Fault(path, f"expected answers that are drawn, got {text}", hint)
    if (suite.repeats or 1) > 1:
        expected = "expected answers that are drawn, because greedy ones are all the same"
        yield Fault(("repeats",), f"{expected}, got {text}", hint)


def _without_generation(suite: Suite) -> Iterator[Fault]:
    """Settings of answers where no task generates any."""
    text = "expected a task that generates text, got none"
    if suite.generation_kwargs.written:
        yield Fault(("generation_kwargs",), text, "drop the key")
    if suite.repeats is not None:
        yield Fault(("repeats",), text, "drop the key")
    if suite.reasoning not in ("auto", "keep"):
        yield Fault(("reasoning",), text, "drop the key")
