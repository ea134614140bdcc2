"""Everything that touches lm-eval's tasks: its index, its filters, its standard errors.

``language_model`` and ``image_model`` touch its models, and no other file imports ``lm_eval``. Not
public there, and used: ``load_yaml``, which reads a task file and imports the functions it names;
what tasks and groups keep. ``utils.apply_template`` is replaced while we work.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import lm_eval.tasks
import lm_eval.utils
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api.filter import FilterEnsemble
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import acc_all, acc_all_stderr, mean, mean_stderr
from lm_eval.api.registry import FILTER_REGISTRY, METRIC_REGISTRY, get_filter
from lm_eval.api.samplers import ContextSampler as Sampler
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from evomerge.evaluation.bounded import bounded

__all__ = [
    "BUILTIN_TASKS",
    "FEWSHOT_SEED",
    "GENERATION",
    "Group",
    "Instance",
    "Sampler",
    "Task",
    "TaskManager",
    "builtin_index",
    "known_filters",
    "known_metrics",
    "load_config",
    "mean",
    "most_texts",
    "rendered",
    "safe_templates",
    "sample_pipelines",
    "single_pipelines",
    "standard_error",
    "task_names",
    "with_examples",
    "with_requests",
    "with_samples",
    "without_data",
]

BUILTIN_TASKS = Path(lm_eval.tasks.__file__).resolve().parent
GENERATION = "generate_until"  # what tasks and requests are called that ask for text
FEWSHOT_SEED = 1234  # what simple_evaluate seeds the choice of examples with


@functools.cache
def builtin_index() -> dict[str, object]:
    """Index lm-eval's own tasks by name: 6-9 s, once per process. Entries must not be changed."""
    return dict(TaskManager().task_index)


def known_metrics() -> frozenset[str]:
    """Name the metrics that are part of lm-eval; others are downloaded as code."""
    return frozenset(METRIC_REGISTRY)


def known_filters() -> frozenset[str]:
    """Name the filters that are part of lm-eval."""
    return frozenset(FILTER_REGISTRY)


def load_config(path: Path) -> dict[str, object]:
    """Read a task file with its includes merged and its functions imported (runs their code)."""
    config: dict[str, object] = load_yaml(path, resolve_func=True)
    return config


def without_data(part: Task | Group) -> Any:
    """Copy a task or group as it is now, with requests, settings and rules but not its datasets.

    Later changes of the task leave the copy alone. A task that is a Python class of its own keeps
    its data: who knows what its scoring reads.
    """
    kept = copy.copy(part)
    if isinstance(kept, Group):
        kept._children = {name: without_data(child) for name, child in kept._children.items()}
        return kept
    kept._config = copy.copy(kept._config)
    if type(kept) is ConfigurableTask:
        for name in ("dataset", "task_docs", "sampler", "_training_docs", "_fewshot_docs"):
            setattr(kept, name, None)
    return kept


def with_requests(task: Task, requests: Sequence[Instance]) -> Task:
    """Copy a task with some of its requests; its filters and metrics see no others."""
    kept = copy.copy(task)
    kept._instances = list(requests)
    return kept


def with_examples(task: Task, examples: Sequence[Mapping[str, object]] | None) -> None:
    """Let a task that is a Python class draw its examples from these; ``None``: from its own."""
    task._fewshot_docs = examples


@dataclass
class _AllSamples(FilterEnsemble):  # type: ignore[misc]
    """A pipeline that keeps every answer to an item; ``prefix`` names the one it comes from."""

    prefix: str = ""


def with_samples(task: Task, n: int) -> None:
    """Ask a task for so many answers to each item, and let all of them count.

    Beside every pipeline of filters that takes the first answer there will be one that takes the
    most frequent, ``maj@N``, and one that keeps them all; see ``sample_pipelines``.
    """
    task.set_config(key="repeats", value=n)
    for own in [one for one in task._filters if n > 1 and _takes_first(one)]:
        prefix, steps = "" if own.name == "none" else f"{own.name}-", own.filters[:-1]
        vote = [*steps, get_filter("majority_vote"), get_filter("take_first")]
        task._filters.append(FilterEnsemble(f"{prefix}maj@{n}", vote))
        task._filters.append(_AllSamples(f"{prefix}all@{n}", steps, prefix))


def sample_pipelines(task: Task) -> dict[str, str]:
    """Name the pipelines that keep every answer, and what their metrics' names begin with."""
    filters = getattr(task, "_filters", ())
    return {one.name: one.prefix for one in filters if isinstance(one, _AllSamples)}


def single_pipelines(task: Task, request: Instance) -> list[str]:
    """Name the other pipelines, through which a request has gone."""
    return [name for name in request.filtered_resps if name not in sample_pipelines(task)]


def most_texts(task: Task) -> int:
    """Tell how many different texts a task's filters make of the answers to an item, at most."""
    repeats, filters = task.config.repeats or 1, getattr(task, "_filters", ())
    found = sum(1 if _takes_first(one) else repeats for one in filters)
    return found - 2 * len(sample_pipelines(task))  # the first and the most frequent are among all


def _takes_first(pipeline: FilterEnsemble) -> bool:
    last = pipeline.filters[-1] if pipeline.filters else None
    return getattr(last, "func", last) is get_filter("take_first")


def task_names(group: Group) -> frozenset[str]:
    """Name all tasks of a group, those of its groups included."""
    return frozenset(str(task.task_name) for task in group.get_all_tasks())


def standard_error(aggregation: Callable[..., float], values: Sequence[float]) -> float:
    """Compute the closed-form standard error of a metric; NaN where there is none.

    Args:
        aggregation: The metric's aggregation function.
        values: Per-item values.
    """
    closed_form = {mean: mean_stderr, acc_all: acc_all_stderr}.get(aggregation)
    if closed_form is None or len(values) < 2:
        return math.nan
    return float(closed_form(values))


@contextmanager
def safe_templates() -> Iterator[None]:
    """Render task templates in a sandbox while the context is open.

    lm-eval renders them in an ordinary environment, where a template can run any Python and take
    any memory, and compiles a template anew for every item.
    """
    original = lm_eval.utils.apply_template
    lm_eval.utils.apply_template = rendered
    try:
        yield
    finally:
        lm_eval.utils.apply_template = original


def rendered(template: str, doc: Mapping[str, object]) -> str:
    """Fill in a template in a sandbox, with a bound on its memory.

    Args:
        template: Jinja2, with lm-eval's filters.
        doc: What it may name; another name is an error.
    """
    return bounded(lambda: _compiled(template).render(**doc), f"the template {template[:60]!r}")


@functools.lru_cache(maxsize=1024)
def _compiled(template: str) -> jinja2.Template:
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(lm_eval.utils.env.filters)
    return environment.from_string(template)
