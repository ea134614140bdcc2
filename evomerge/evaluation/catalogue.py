"""The tasks of an experiment, loaded once: everything that can be asked of them without a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from typing_extensions import Self

from evomerge.errors import EvaluationError, Fault, collected
from evomerge.evaluation.aggregate import aggregate_group, item_values, metric_label
from evomerge.evaluation.benchmark_guard import searched_benchmarks, test_split_faults
from evomerge.evaluation.harness import GENERATION, single_pipelines
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.images import ImageCount, has_images, image_bytes, images_of
from evomerge.evaluation.item_losses import LossKind
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.own_metrics import NOISE
from evomerge.evaluation.own_values import own_keys, trial_faults
from evomerge.evaluation.passes import Pass, largest_passes
from evomerge.evaluation.requests import PreparedTask, PromptedSuite, prompt_suite
from evomerge.evaluation.rungs import cut_task
from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.sloped_objectives import (
    ObjectiveTasks,
    SlopedObjective,
    expected_objective,
    names_in,
)
from evomerge.evaluation.smooth import smooth_names
from evomerge.evaluation.suite import REPORT_ONLY, SPLITS, Suite
from evomerge.evaluation.tasks import (
    LoadedSuite,
    load_suite,
    load_what_loads,
    name_clashes,
    why,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TaskCatalogue", "TaskMetric", "prompt_suites"]

_log = logging.getLogger(__name__)

TaskMetric = tuple[
    str, str, Literal["maximize", "minimize"]
]  # task or group, metric, what is better
Tables = Mapping[str, Mapping[str, MetricValue]]  # by task or group, by metric

# What a model that knows nothing would answer to each kind of request.
_BLANK_RESPONSES = {
    "loglikelihood": (-1.0, False),
    "loglikelihood_rolling": -1.0,
    "generate_until": "",
}


class TaskCatalogue:
    """Suites whose tasks are loaded, prompted and tried with blank responses, once.

    So broken templates, missing data, empty splits and code that may not run are found before a
    model is loaded. A public benchmark must not be searched on the items it is reported by, unless
    its suite allows that; then a warning is logged.

    Args:
        suites: What to load.
        model: Whose prompts they are to be; needs no parameters. Then every item is built, and must
            fit into the context. ``None`` builds the first item of each task and split.

    Attributes:
        faults: What is wrong with any of them, by the name and the keys of the suite; what follows
            leaves it out.
        missing: Names of tasks and groups that would be here but for those faults.
    """

    def __init__(self, suites: Sequence[Suite], model: LanguageModel | None = None) -> None:
        self._entries: list[_Entry] = []
        self._model, self._sloped = model, dict[tuple[str, str, str, LossKind], SlopedObjective]()
        faults: list[Fault] = []
        for suite in suites:
            with clean_harness(), collected(faults, suite.name):
                loaded, found = load_what_loads(suite)
                self._entries.append(_Entry(loaded))
                faults += [fault.under(suite.name) for fault in found]
        for entry in self._entries:
            faults += [f.under(entry.suite.name) for f in _benchmark_faults(entry.loaded)]
            for split in entry.suite.splits:
                with clean_harness(), collected(faults, entry.suite.name):
                    entry.add(split, model)
            with clean_harness():
                faults += [fault.under(entry.suite.name) for fault in entry.trials(faults)]
        clashes = name_clashes([entry.loaded for entry in self._entries])
        self.faults = tuple(dict.fromkeys([*faults, *clashes]))
        self.missing = self._missing(suites)

    def _missing(self, suites: Sequence[Suite]) -> frozenset[str]:
        faulty = {fault.path[0] for fault in self.faults}
        asked = {task for suite in suites if suite.name in faulty for task in suite.tasks}
        for one in (entry.loaded for entry in self._entries if entry.suite.name in faulty):
            asked |= {*one.missing, *one.tasks, *one.groups}
        return frozenset(asked - self.metrics.keys() - self.reported.keys())

    @classmethod
    def of(cls, suites: Sequence[Suite], model: LanguageModel | None = None) -> Self:
        """Make the catalogue of suites without faults.

        Raises:
            EvaluationError: Every fault of every suite and split.
        """
        found = cls(suites, model)
        if found.faults:
            raise EvaluationError(*found.faults)
        return found

    def only(self, suites: Sequence[Suite]) -> TaskCatalogue | None:
        """Give the part that holds these suites alone; ``None`` if some is not here."""
        known = {id(entry): entry for entry in self._entries if entry.suite in suites}
        if len(known) != len(suites):
            return None
        part = TaskCatalogue(())
        part._entries, part._model = list(known.values()), self._model
        part.faults, part.missing = self.faults, self.missing
        return part

    @property
    def metrics(self) -> dict[str, tuple[str, ...]]:
        """The metrics of every task and group that may be searched.

        ``METRIC`` or ``METRIC,FILTER``, then the smooth ones, which are scored where
        ``Suite.smooth`` asks for them. Groups that only collect tasks are left out.
        """
        return self._metrics(report_only=False)

    @property
    def reported(self) -> dict[str, tuple[str, ...]]:
        """The same of what is only reported."""
        return self._metrics(report_only=True)

    def _metrics(self, *, report_only: bool) -> dict[str, tuple[str, ...]]:
        wanted = [one for one in self._entries if one.suite.report_only == report_only]
        return {name: names for one in wanted for name, names in one.metrics().items()}

    @property
    def has_answers(self) -> bool:
        """Whether any task that is searched asks for generated text."""
        searched = [one.loaded for one in self._entries if not one.suite.report_only]
        return any(
            task.OUTPUT_TYPE == GENERATION for one in searched for task in one.tasks.values()
        )

    @property
    def images(self) -> ImageCount | None:
        """What images the prompts have, in all splits; ``None`` without any.

        The catalogue must have been made with a model.
        """
        suites = [one for split in (*SPLITS, REPORT_ONLY) for one in self.prompted(split)]
        shown = [one.task for suite in suites for one in suite.tasks if has_images(one.task)]
        names = tuple(dict.fromkeys(str(task.config.task) for task in shown))
        requests = [request for task in shown for request in task.instances]
        found = {id(one): one for request in requests for one in images_of(request)}
        return ImageCount(names, len(found), image_bytes(found.values())) if names else None

    @property
    def has_texts(self) -> bool:
        """Whether any task that is searched has prompts of text alone."""
        searched = [one.loaded for one in self._entries if not one.suite.report_only]
        return any(not has_images(task) for one in searched for task in one.tasks.values())

    @property
    def report_only_measures(self) -> list[TaskMetric]:
        """What the report-only suites report, and which way lm-eval holds to be better.

        Every metric of the tasks and groups that the suites name; of a group or tag without metrics
        those of its tasks. Smooth metrics are left out.
        """
        return self._measures(report_only=True)

    @property
    def measures(self) -> list[TaskMetric]:
        """The same of what may be searched."""
        return self._measures(report_only=False)

    def _measures(self, *, report_only: bool) -> list[TaskMetric]:
        wanted = [one for one in self._entries if one.suite.report_only == report_only]
        return [measure for one in wanted for measure in one.measures()]

    @property
    def searched_benchmarks(self) -> dict[str, str]:
        """The public benchmarks whose reported split is searched: task -> that split."""
        found = (searched_benchmarks(one.loaded) for one in self._entries)
        return {task: split for benchmarks in found for task, split in benchmarks.items()}

    def sloped(
        self, task: str, metric: str, direction: str, kind: LossKind = "gold"
    ) -> SlopedObjective:
        """Find the items that give an objective its slope, or why it has none; once for each.

        The catalogue must have been made with a model.
        """
        key = (task, metric, direction, kind)
        if key not in self._sloped:
            with clean_harness():
                self._sloped[key] = expected_objective(self._part(task, metric), direction, kind)
        return self._sloped[key]

    def _part(self, task: str, metric: str) -> ObjectiveTasks:
        assert self._model is not None, "prompts are built"
        for suite in self.prompted("search"):
            names = names_in(suite, task)
            tasks = tuple(one for one in suite.tasks if one.name in names)
            if tasks:
                return ObjectiveTasks(tasks, suite.groups.get(task), metric, self._model)
        return ObjectiveTasks((), None, metric, self._model)

    def n_items(self, split: str) -> int:
        """Count the items of one split, over all tasks; of ``report_only`` those reported.

        The catalogue must have been made with a model.
        """
        return sum(len(task.items) for suite in self.prompted(split) for task in suite.tasks)

    def largest_passes(self, full: int, answers: Callable[[int], int]) -> tuple[Pass, ...]:
        """Bound the batches of all that is ever scored; see ``evaluation.passes``.

        The catalogue must have been made with a model.

        Args:
            full: Tokens of a batch of size ``auto``.
            answers: How many answers are under way there, given a length.
        """
        assert self._model is not None, "prompts are built"
        suites = [one for split in (*SPLITS, REPORT_ONLY) for one in self.prompted(split)]
        with clean_harness():
            return tuple(largest_passes(suites, self._model, full, answers))

    def prompted(self, split: str) -> tuple[PromptedSuite, ...]:
        """Give the suites with the prompts of one split, or of what is only reported."""
        is_reported = split == REPORT_ONLY
        key = "test" if is_reported else split
        wanted = [one for one in self._entries if one.suite.report_only == is_reported]
        return tuple(one.prompted[key] for one in wanted if key in one.prompted)


@dataclass(frozen=True)
class _Entry:
    """One suite of a catalogue, with its prompts and metrics by split; those of no value."""

    loaded: LoadedSuite
    prompted: dict[str, PromptedSuite] = field(default_factory=dict)
    tables: dict[str, Tables] = field(default_factory=dict)

    @property
    def suite(self) -> Suite:
        return self.loaded.suite

    def add(self, split: str, model: LanguageModel | None) -> None:
        self.prompted[split] = prompt_suite(self.loaded, split, model, first_only=model is None)
        self.tables[split] = _tables(self.prompted[split])

    def trials(self, found: Sequence[Fault]) -> Iterator[Fault]:
        """Try the metrics of one's own that nothing is known to be wrong with."""
        inside = [fault.path[1:3] for fault in found if fault.path[:1] == (self.suite.name,)]
        wrong = [str(path[1]) for path in inside if path[:1] == ("metrics",)]
        for prepared in next(iter(self.prompted.values())).tasks if self.prompted else ():
            yield from trial_faults(prepared, wrong)

    def metrics(self) -> dict[str, tuple[str, ...]]:
        smooth = {name: smooth_names(task) for name, task in self.loaded.tasks.items()}
        tables = {name: table for found in self.tables.values() for name, table in found.items()}
        return {n: (*table, *smooth.get(n, ())) for n, table in tables.items() if table}

    def measures(self) -> Iterator[TaskMetric]:
        tables = self.tables["test"]
        is_better = {
            metric: higher
            for task in self.loaded.tasks.values()
            for metric, higher in task.higher_is_better().items()
        }
        for name, own in self.suite.metrics.items():
            is_better |= {name: own.higher_is_better, f"{name}{NOISE}": False}
        named = [name for name in self.suite.tasks if tables.get(name)]
        for name in named if len(named) == len(self.suite.tasks) else tables:
            for label in tables[name]:
                higher = is_better.get(label.partition(",")[0], True)
                yield name, label, "maximize" if higher else "minimize"


def prompt_suites(
    suites: Sequence[Suite],
    split: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reading: Mapping[str, object] | None = None,
) -> tuple[PromptedSuite, ...]:
    """Load suites and build their prompts for one split alone.

    Args:
        suites: Task names must not occur twice.
        split: One of ``SPLITS``.
        model: Whose context prompts must fit into.
        tokenizer: Its chat template shapes them.
        reading: See ``LanguageModel``.

    Raises:
        EvaluationError: Every fault of every suite for this split.
    """
    prompted: list[PromptedSuite] = []
    loaded: list[LoadedSuite] = []
    faults: list[Fault] = []
    with clean_harness():
        reader = LanguageModel(model, tokenizer, 1, reading=reading or {})
    for suite in suites:
        with clean_harness(), collected(faults, suite.name):
            loaded.append(load_suite(suite))
            prompted.append(prompt_suite(loaded[-1], split, reader))
    if faults := [*faults, *name_clashes(loaded)]:
        raise EvaluationError(*faults)
    return tuple(prompted)


def _benchmark_faults(loaded: LoadedSuite) -> list[Fault]:
    found = test_split_faults(loaded)
    if not loaded.suite.allow_test_split:
        return found
    for fault in found:
        _log.warning("WARNING: %s", fault.under(loaded.suite.name))
    return []


def _tables(prompted: PromptedSuite) -> Tables:
    """The metrics of every task and group; their values mean nothing.

    Raises:
        EvaluationError: A task has none, or cannot filter its answers; a fault per task.
    """
    tables: dict[str, dict[str, MetricValue]] = {}
    faults = []
    for prepared in prompted.tasks:
        task, path = f"task {prepared.name!r}", prompted.suite.path_of(prepared.name)
        try:
            tables[prepared.name] = _blank_table(prepared)
        except Exception as err:  # filters raise anything
            faults.append(Fault(path, f"{task}: its filters fail (filter_list): {why(err, {})}"))
            continue
        if not tables[prepared.name]:
            text = f"{task} yields no metric; its metric_list does not fit its output_type"
            faults.append(Fault(path, text))
    if faults:
        raise EvaluationError(*faults)
    for name, group in prompted.groups.items():
        tables[name] = aggregate_group(group, tables)
    return tables


def _blank_table(prepared: PreparedTask) -> dict[str, MetricValue]:
    """The metrics a task returns for blank responses to its first item; values mean nothing."""
    first = cut_task(prepared, [1 / len(prepared.items)])[0]
    for request in first.task.instances:
        blank = _BLANK_RESPONSES[request.request_type]
        request.resps, request.filtered_resps = [blank] * request.repeats, {}
    first.task.apply_filters()
    filters = single_pipelines(first.task, first.items[0].requests[0])
    try:
        keys = list(item_values(first))
    except Exception:  # a task's own scoring code may insist on a well-formed answer
        keys = [(metric, name) for name in filters for metric in first.task.aggregation()]
    keys += own_keys(first)
    return {metric_label(*key): MetricValue(0.0, 0.0, 2) for key in keys}
