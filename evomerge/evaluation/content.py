"""What scores depend on beside a model's parameters, as plain data that can be digested.

Two places on disk with the same content yield the same data: no path is in it, and no time.
"""

from __future__ import annotations

import functools
import inspect
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evomerge.errors import EvaluationError
from evomerge.evaluation.catalogue import TaskCatalogue
from evomerge.evaluation.harness import BUILTIN_TASKS, GENERATION, Instance
from evomerge.evaluation.images import has_images, with_pixels
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.own_functions import source_texts
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.reasoning import Tags
from evomerge.evaluation.requests import PreparedTask, PromptedSuite
from evomerge.evaluation.suite import REPORT_ONLY
from evomerge.fingerprint import digest_of

__all__ = [
    "generation_content",
    "image_content",
    "item_content",
    "item_digests",
    "metric_digests",
    "own_content",
    "require_same_tasks",
    "settings_content",
    "task_digests",
    "token_content",
    "tokenizer_content",
]

# Where a task's items come from; the items themselves are what counts. Code is read from its files.
_SOURCES = frozenset(
    (
        *("dataset_path", "dataset_name", "dataset_kwargs", "custom_dataset"),
        *("test_split", "validation_split", "training_split", "fewshot_split"),
    )
)
# What decides how answers are made and scored, beside prompts and code.
_SCORING = ("output_type", "generation_kwargs", "repeats", "filter_list", "metric_list")
# Of a tokenizer, what is not in its vocabulary and rules.
_ATTRIBUTES = (
    *("chat_template", "clean_up_tokenization_spaces", "model_max_length", "padding_side"),
    *("add_bos_token", "add_eos_token", "special_tokens_map"),
)


def item_content(prepared: PreparedTask, tags: Tags | None) -> list[object]:
    """Describe the items of a task and split: as data, as prompts, and how answers are scored.

    Args:
        prepared: The task.
        tags: Of the reasoning that is left out of its answers.

    The same for every version of lm-eval that reads the same from the task's files. What the task's
    code reads from elsewhere, when it scores, is not seen.
    """
    config = asdict(prepared.task.config)
    how = {key: config[key] for key in _SCORING if config.get(key) is not None}
    if tags is not None and prepared.task.OUTPUT_TYPE == GENERATION:
        how["reasoning"] = tags.both
    items = [[i.row, i.doc, [[r.request_type, r.args] for r in i.requests]] for i in prepared.items]
    return [prepared.name, how, _code(prepared), with_pixels(items)]


def settings_content(prepared: PreparedTask) -> dict[str, object]:
    """Describe everything else that lm-eval knows of a task."""
    config = asdict(prepared.task.config)
    return {key: value for key, value in config.items() if key not in _SOURCES}


def item_digests(tasks: TaskCatalogue, splits: Collection[str]) -> dict[str, str]:
    """Name what is scored by content, for each task and split.

    Args:
        tasks: All of them; of those that are only reported, the test items count.
        splits: Which splits, where a suite has them.

    Returns:
        ``TASK (SPLIT)`` -> digest.
    """
    wanted = [*splits, *([REPORT_ONLY] if "test" in splits else [])]
    return {
        f"{one.name} ({'test' if split == REPORT_ONLY else split})": digest_of(
            item_content(one, suite.tags)
        )
        for split in wanted
        for suite in tasks.prompted(split)
        for one in suite.tasks
    }


def metric_digests(tasks: TaskCatalogue, splits: Collection[str]) -> dict[str, str]:
    """Name each metric of one's own by its content; see ``item_digests``.

    Returns:
        Its name -> digest.
    """
    wanted = [*splits, *([REPORT_ONLY] if "test" in splits else [])]
    suites = [one.suite for split in wanted for one in tasks.prompted(split)]
    found: dict[str, set[str]] = {}  # suites may call different metrics alike
    for suite in suites:
        for name, own in own_content(suite.metrics).items():
            found.setdefault(name, set()).add(digest_of(own))
    return {name: digest_of(sorted(digests)) for name, digests in found.items()}


def task_digests(prompted: Iterable[PromptedSuite]) -> dict[str, str]:
    """Name what is scored of each task, items and metrics of one's own, by content.

    Returns:
        Task -> digest.
    """
    return {
        one.name: digest_of(item_content(one, suite.tags), own_content(one.own))
        for suite in prompted
        for one in suite.tasks
    }


def require_same_tasks(prompted: Iterable[PromptedSuite], wanted: Mapping[str, str]) -> None:
    """Refuse tasks whose files were changed since they were looked at, or are others here.

    Args:
        prompted: As they are read now.
        wanted: As they were; see ``task_digests``.

    Raises:
        EvaluationError: Naming each task that differs.
    """
    found = task_digests(prompted)
    changed = [name for name, digest in wanted.items() if found.get(name) != digest]
    if changed:
        raise EvaluationError(
            f"expected items, code and metrics of {', '.join(changed)} as they were when the run "
            "began, got others; restore the files (include_path, metrics), or start a new study; "
            "code of a task that shuffles needs a seed"
        )


def own_content(metrics: Mapping[str, OwnMetric]) -> dict[str, object]:
    """Describe metrics of one's own: code, questions and how verdicts are read."""
    return {name: _own_content(name, metric) for name, metric in metrics.items()}


def _own_content(name: str, metric: OwnMetric) -> object:
    described = metric.judge or metric.runs
    if described is not None:
        return described.content
    function = metric.name or name
    return [function, *source_texts(metric.file, metric.entry_point, function)]


def tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """Describe a tokenizer: vocabulary, rules, special tokens, chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = _saved(tokenizer) if backend is None else json.loads(backend.to_str())
    for state in ("padding", "truncation"):  # of the last call
        rules.pop(state, None)
    return [rules, {name: getattr(tokenizer, name, None) for name in _ATTRIBUTES}]


def generation_content(model: LanguageModel) -> dict[str, object]:
    """Describe how a model generates where a task does not say."""
    return dict(model.lm.model.generation_config.to_diff_dict())


def image_content(model: LanguageModel, tasks: Iterable[PreparedTask]) -> list[object]:
    """Describe how images become tokens; nothing where no task has images."""
    return model.images.content if any(has_images(one.task) for one in tasks) else []


def token_content(instances: Sequence[Instance], model: LanguageModel) -> list[object]:
    """List the tokens of prompts and continuations, as a model reads them."""
    return [_tokens(instance, model) for instance in instances]


def _tokens(instance: Instance, model: LanguageModel) -> object:
    match instance.request_type:
        case "loglikelihood":
            return model.pair(*instance.args)
        case "loglikelihood_rolling":
            return model.windows(instance.args[0])
        case _:
            return model.tokens(instance.args[0])


def _saved(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """Write a tokenizer without a description of its own to files, and read those."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        return {file.name: file.read_bytes().hex() for file in files}


def _code(prepared: PreparedTask) -> list[str]:
    """Read the modules that a task's functions are in, with those beside them.

    lm-eval's own are known by its version.
    """
    functions = [*_functions(asdict(prepared.task.config)), type(prepared.task)]
    folders = {Path(file).parent for function in functions if (file := _source_file(function))}
    files = [file for folder in folders for file in folder.glob("*.py")]
    return sorted(file.read_text(errors="replace") for file in files)


def _source_file(function: object) -> str | None:
    while isinstance(function, functools.partial):
        function = function.func
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))  # type: ignore[arg-type]
    except TypeError:  # of C, or no class of ours
        return None
    return None if file is None or BUILTIN_TASKS.parent in Path(file).resolve().parents else file


def _functions(value: object) -> Iterator[object]:
    if callable(value):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _functions(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _functions(part)
