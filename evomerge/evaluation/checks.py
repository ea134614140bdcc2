"""Checking suites and naming their metrics without a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from evomerge.evaluation.aggregate import aggregate_group, item_values, metric_label
from evomerge.evaluation.answers import GENERATION
from evomerge.evaluation.benchmark_guard import test_split_faults
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.requests import PreparedTask, prepare_split
from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.smooth import smooth_names
from evomerge.evaluation.suite import Suite, collected, raise_faults
from evomerge.evaluation.tasks import LoadedSuite, load_suite, name_clashes

__all__ = ["has_answers", "metric_names"]

_log = logging.getLogger(__name__)

# What a model that knows nothing would answer to each kind of request.
_BLANK_RESPONSES = {
    "loglikelihood": (-1.0, False),
    "loglikelihood_rolling": -1.0,
    "generate_until": "",
}


def metric_names(suites: Sequence[Suite]) -> dict[str, tuple[str, ...]]:
    """Name the metrics of every task and group, after checking every split the suites declare.

    Each split is tried on its first item with blank responses, so broken templates, missing data
    and empty splits are found before a model is loaded.

    A public benchmark must not be searched on the items it is reported by, unless its suite allows
    that; then a warning is logged.

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
                suites_loaded.append(load_suite(suite))
        for loaded in suites_loaded:
            found = test_split_faults(loaded)
            if loaded.suite.allow_test_split:
                _log.warning("%s", "\n".join(f"WARNING: {line}" for line in found))
            else:
                faults += found
            for split in loaded.suite.splits:
                with collected(faults):
                    names |= _names(loaded, split)
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


def _names(loaded: LoadedSuite, split: str) -> dict[str, tuple[str, ...]]:
    tasks = prepare_split(loaded, split, None, first_only=True)
    tables = {prepared.name: _blank_table(prepared) for prepared in tasks}
    raise_faults(
        [
            f"evaluator {loaded.suite.name!r}: task {name!r} yields no metric; its metric_list "
            "does not fit its output_type"
            for name, table in tables.items()
            if not table
        ]
    )
    for name, group in loaded.groups.items():
        tables[name] = aggregate_group(group, tables)
    smooth = {prepared.name: smooth_names(prepared.task) for prepared in tasks}
    return {name: (*table, *smooth.get(name, ())) for name, table in tables.items() if table}


def _blank_table(prepared: PreparedTask) -> dict[str, MetricValue]:
    """The metrics a task returns for blank responses; their values mean nothing."""
    for request in prepared.task.instances:
        blank = _BLANK_RESPONSES[request.request_type]
        request.resps, request.filtered_resps = [blank] * request.repeats, {}
    try:
        keys = list(item_values(prepared))
    except Exception:  # a task's own scoring code may insist on a well-formed answer
        filters = prepared.items[0].requests[0].filtered_resps
        keys = [(metric, name) for name in filters for metric in prepared.task.aggregation()]
    return {metric_label(*key): MetricValue(0.0, 0.0, 2) for key in keys}
