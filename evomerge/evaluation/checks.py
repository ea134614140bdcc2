"""Checking suites and naming their metrics without a model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

from evomerge.evaluation.aggregate import aggregate_group, item_values, metric_label
from evomerge.evaluation.answers import GENERATION
from evomerge.evaluation.benchmark_guard import test_split_faults
from evomerge.evaluation.harness import LanguageModel
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.requests import PreparedTask, prepare_split, switch_split
from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.smooth import smooth_names
from evomerge.evaluation.suite import Suite, collected, raise_faults
from evomerge.evaluation.tasks import LoadedSuite, load_suite, load_what_loads, name_clashes, why

__all__ = ["Measure", "has_answers", "metric_names", "n_items", "report_only_measures"]

_log = logging.getLogger(__name__)

Measure = tuple[str, str, Literal["maximize", "minimize"]]  # task or group, metric, what is better

# What a model that knows nothing would answer to each kind of request.
_BLANK_RESPONSES = {
    "loglikelihood": (-1.0, False),
    "loglikelihood_rolling": -1.0,
    "generate_until": "",
}


def metric_names(
    suites: Sequence[Suite], model: LanguageModel | None = None
) -> dict[str, tuple[str, ...]]:
    """Name the metrics of every task and group, after checking every split the suites declare.

    Each split is tried with blank responses, so broken templates, missing data and empty splits
    are found before a model is loaded.

    A public benchmark must not be searched on the items it is reported by, unless its suite allows
    that; then a warning is logged.

    Args:
        suites: What to check.
        model: Whose prompts they are to be; needs no parameters. Then every item is built, and must
            fit into the context. ``None`` tries the first item of each task and split.

    Returns:
        Task or group name -> metric names, ``METRIC`` or ``METRIC,FILTER``, then the smooth ones,
        which are scored where ``Suite.smooth`` asks for them. Groups that only collect tasks are
        left out.

    Raises:
        EvaluationError: Every fault of every suite and split, one per line.
    """
    names: dict[str, tuple[str, ...]] = {}
    faults: list[str] = []
    suites_loaded = []
    with clean_harness():
        for suite in suites:
            with collected(faults):
                loaded, found = load_what_loads(suite)
                suites_loaded.append(loaded)
                faults += found
        for loaded in suites_loaded:
            found = test_split_faults(loaded)
            if loaded.suite.allow_test_split:
                _log.warning("%s", "\n".join(f"WARNING: {line}" for line in found))
            else:
                faults += found
            for split in loaded.suite.splits:
                with collected(faults):
                    names |= _names(loaded, split, model)
    raise_faults(faults + name_clashes(suites_loaded))
    return names


def has_answers(suites: Sequence[Suite]) -> bool:
    """Tell whether any task of the suites asks for generated text.

    Raises:
        EvaluationError: A suite cannot be loaded.
    """
    with clean_harness():
        loaded = [load_suite(suite) for suite in suites]
    return any(task.OUTPUT_TYPE == GENERATION for one in loaded for task in one.tasks.values())


def report_only_measures(suites: Sequence[Suite]) -> list[Measure]:
    """List what the report-only suites report, and which way lm-eval holds to be better.

    Returns:
        Every metric of the tasks and groups that the suites name; of a group or tag without metrics
        those of its tasks. Smooth metrics are left out.

    Raises:
        EvaluationError: A suite cannot be loaded or prompted.
    """
    with clean_harness():
        return [m for s in suites if s.report_only for m in _measures(load_suite(s))]


def n_items(suites: Sequence[Suite], split: str) -> int:
    """Count the items of one split, over all tasks of the suites.

    Raises:
        EvaluationError: A suite cannot be loaded, or has no such split.
    """
    with clean_harness():
        loaded = [load_suite(suite) for suite in suites]
        return sum(len(switch_split(one, name, split)) for one in loaded for name in one.tasks)


def _measures(loaded: LoadedSuite) -> Iterator[Measure]:
    tables = _tables(loaded, prepare_split(loaded, "test", None, first_only=True))
    is_better = {
        metric: higher
        for task in loaded.tasks.values()
        for metric, higher in task.higher_is_better().items()
    }
    named = [name for name in loaded.suite.tasks if tables.get(name)]
    for name in named if len(named) == len(loaded.suite.tasks) else tables:
        for label in tables[name]:
            higher = is_better.get(label.partition(",")[0], True)
            yield name, label, "maximize" if higher else "minimize"


def _names(
    loaded: LoadedSuite, split: str, model: LanguageModel | None
) -> dict[str, tuple[str, ...]]:
    tasks = prepare_split(loaded, split, model, first_only=model is None)
    tables = _tables(loaded, tasks)
    smooth = {prepared.name: smooth_names(prepared.task) for prepared in tasks}
    return {name: (*table, *smooth.get(name, ())) for name, table in tables.items() if table}


def _tables(
    loaded: LoadedSuite, tasks: Sequence[PreparedTask]
) -> dict[str, dict[str, MetricValue]]:
    """The metrics of every task and group; their values mean nothing.

    Raises:
        EvaluationError: A task has none, or cannot filter its answers; one line per task.
    """
    tables: dict[str, dict[str, MetricValue]] = {}
    faults = []
    for prepared in tasks:
        where = f"evaluator {loaded.suite.name!r}: task {prepared.name!r}"
        try:
            tables[prepared.name] = _blank_table(prepared)
        except Exception as err:  # filters raise anything
            faults.append(f"{where}: its filters fail (filter_list): {why(err, {})}")
            continue
        if not tables[prepared.name]:
            faults.append(f"{where} yields no metric; its metric_list does not fit its output_type")
    raise_faults(faults)
    for name, group in loaded.groups.items():
        tables[name] = aggregate_group(group, tables)
    return tables


def _blank_table(prepared: PreparedTask) -> dict[str, MetricValue]:
    """The metrics a task returns for blank responses; their values mean nothing."""
    for request in prepared.task.instances:
        blank = _BLANK_RESPONSES[request.request_type]
        request.resps, request.filtered_resps = [blank] * request.repeats, {}
    prepared.task.apply_filters()
    try:
        keys = list(item_values(prepared))
    except Exception:  # a task's own scoring code may insist on a well-formed answer
        filters = prepared.items[0].requests[0].filtered_resps
        keys = [(metric, name) for name in filters for metric in prepared.task.aggregation()]
    return {metric_label(*key): MetricValue(0.0, 0.0, 2) for key in keys}
