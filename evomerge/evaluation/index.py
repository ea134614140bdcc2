"""Finding tasks by name: the user's folder first, lm-eval's own index only where needed."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation.harness import (
    BUILTIN_TASKS,
    TaskManager,
    builtin_index,
    known_metrics,
    load_config,
)
from evomerge.evaluation.suite import Suite
from evomerge.evaluation.task_files import (
    TaskFile,
    TaskKeys,
    data_faults,
    mappings,
    read_chain,
    with_absolute_paths,
)

__all__ = ["is_public", "leaf_tasks", "open_index"]

Entry = Any  # lm_eval's index entry: name, yaml_path, cfg (functions as text), tags

# Given to functions that lm-eval ships; some load a tokenizer with them, and trust its code.
_TRUSTED = ("model", "pretrained", "tokenizer", "trust_remote_code")


_FILES = (".jsonl", ".json", ".csv", ".parquet", ".yaml", ".yml")
_OF_A_FILE = (
    "a task goes by its name: five lines of YAML make one of a file of items (docs/tasks.md), and "
    "its folder is the include_path"
)


def open_index(suite: Suite) -> tuple[TaskManager, dict[str, list[Fault]]]:
    """Index the tasks a suite names, checked and with data paths made absolute.

    Here alone it is decided what lm-eval may read of the user's files: what a suite refers to, by
    whatever way, is checked and put into the index as data; the rest leaves the index.

    Returns:
        The index, and what is wrong by the name of the task that must not be loaded for it: unknown
        names (with the nearest), unreadable YAML, missing data files, and code that
        ``suite.allow_code`` does not permit.

    Raises:
        EvaluationError: lm-eval cannot index the folder.
    """
    manager = _local_index(suite)
    index = manager.task_index
    local = [name for name, entry in index.items() if entry.yaml_path is not None]
    if _unknown(index, suite.tasks):
        for name, entry in builtin_index().items():
            index.setdefault(name, entry)
    faults = _name_faults(suite, index)
    reachable = _reachable(index, suite.tasks)
    for name in local:
        if name not in reachable:
            del index[name]
        elif found := _localise(index[name], suite):
            faults[name] = [Fault(suite.path_of(name), text) for text in found]
            index[name].yaml_path, index[name].cfg = None, {}  # nothing is left to be loaded
    return manager, faults


def _local_index(suite: Suite) -> TaskManager:
    folder = [str(suite.include_path)] if suite.include_path else []
    try:
        return TaskManager(include_path=folder, include_defaults=False)
    except TypeError as err:  # it sorts all names
        text = (
            f"lm-eval cannot index {suite.include_path}, because a task, group or tag there is "
            f"named by a number, a date or nothing ({err})"
        )
        raise EvaluationError(Fault(("include_path",), text, "put the name in quotes")) from err


def is_public(manager: TaskManager, name: str) -> bool:
    """Tell whether a task ships with lm-eval, rather than being the user's own."""
    entry = manager.task_index.get(name)
    path = None if entry is None else entry.yaml_path
    return path is not None and BUILTIN_TASKS in Path(path).resolve().parents


def leaf_tasks(
    manager: TaskManager, names: Sequence[str], faulty: Mapping[str, object]
) -> list[str]:
    """List the indexed tasks that names stand for, groups and tags expanded.

    Args:
        manager: Holds the index.
        names: Of tasks, groups and tags.
        faulty: Must not be loaded, and nothing that refers to them.
    """
    index = manager.task_index
    leaves = [name for name in _reachable(index, names) if not _members(index[name])]
    return [name for name in leaves if not faulty.keys() & set(_reachable(index, [name]))]


def _members(entry: Entry) -> list[str]:
    """Names that a group or tag must find; members a group defines in place are left out."""
    if entry.cfg is None:  # a tag
        return sorted(entry.tags)
    members = entry.cfg.get("task")
    if not isinstance(members, list):
        return []
    return list(_references(members))


def _references(members: Sequence[str | TaskKeys]) -> Iterator[str]:
    for member in members:
        if isinstance(member, str):
            yield member
        elif isinstance(member, dict) and isinstance(member.get("task"), list):
            yield from _references(member["task"])
        elif isinstance(member, dict) and "dataset_path" not in member:
            yield str(member.get("task") or member.get("group"))


def _mentioned(entry: Entry) -> list[str]:
    """Every name that lm-eval could look up to build an entry, defined in place or not."""
    named = [value for one in mappings(entry.cfg) for value in (one.get("task"), one.get("group"))]
    lists = [value if isinstance(value, list) else [value] for value in named]
    names = [name for value in lists for name in value if isinstance(name, str)]
    return [*(sorted(entry.tags) if entry.cfg is None else []), *names]


def _reachable(index: Mapping[str, Entry], names: Sequence[str]) -> list[str]:
    """Known names that can be reached from ``names``, each once, in order of discovery."""
    found: dict[str, None] = {}
    pending = deque(names)
    while pending:
        name = pending.popleft()
        if name in index and name not in found:
            found[name] = None
            pending += _mentioned(index[name])
    return list(found)


def _unknown(index: Mapping[str, Entry], names: Sequence[str]) -> list[str]:
    """Names, given or referred to, that the index does not hold."""
    referred = [m for name in _reachable(index, names) for m in _members(index[name])]
    return [name for name in dict.fromkeys([*names, *referred]) if name not in index]


def _name_faults(suite: Suite, index: Mapping[str, Entry]) -> dict[str, list[Fault]]:
    faults = {}
    for name in _unknown(index, suite.tasks):
        nearest = difflib.get_close_matches(name, index, n=3)
        hint = f"nearest: {', '.join(nearest)}" if nearest else ""
        hint = _OF_A_FILE if Path(name).suffix in _FILES else hint
        faults[name] = [Fault(suite.path_of(name), f"unknown task {name!r}", hint)]
    if faults and suite.include_path:  # one of the unreadable may be what is missing
        texts = _unreadable(suite.include_path)
        faults[name] += [Fault(("include_path",), text) for text in texts]
    return faults


def _unreadable(folder: Path) -> list[str]:
    """Task files that lm-eval's index leaves out without a word."""
    faults = []
    for path in sorted(folder.glob("**/*.yaml")):
        try:
            read_chain(path)
        except ValueError as err:
            faults.append(str(err))
    return faults


def _localise(entry: Entry, suite: Suite) -> list[str]:
    """Replace a user's file in the index by its checked content; return what is wrong with it."""
    try:
        chain = read_chain(Path(entry.yaml_path).resolve())
    except ValueError as err:
        return [str(err)]
    users = [file for file in chain if BUILTIN_TASKS not in file.path.parents]
    if not suite.allow_code and (faults := _code_faults(users)):
        return [f"task {entry.name!r}{fault}" for fault in faults]
    # Without code the index already holds the whole config, and lm-eval need not read the file.
    coded = any(file.code for file in chain)
    config = load_config(chain[0].path) if coded else entry.cfg
    mentioning = [file for file in chain if "dataset_kwargs" in file.data] or chain
    entry.cfg = with_absolute_paths(config, mentioning[0].path.parent)
    entry.yaml_path = None
    where = f"task {entry.name!r} ({chain[0].path})"
    return [f"{where}: {fault}" for fault in data_faults(entry.cfg)]


def _code_faults(files: Sequence[TaskFile]) -> list[str]:
    """What in a user's files would run Python that lm-eval did not ship; one line for all tags."""
    tags = [f"{tag} in {file.path}" for file in files for tag in file.code]
    if tags:
        more = f", and {len(tags) - 1} more" if len(tags) > 1 else ""
        return [f" would run code ({tags[0]}{more}); set allow_code: true if you trust it"]
    found = [one for file in files for one in mappings(file.data)]
    return [f": {fault}" for one in found for fault in [*_foreign_metrics(one), *_unsafe(one)]]


def _foreign_metrics(config: TaskKeys) -> Iterator[str]:
    """Metrics that lm-eval would download as code, or run from a file."""
    listed = config.get("metric_list")
    for metric in listed if isinstance(listed, list) else []:
        settings = metric if isinstance(metric, dict) else {"metric": metric}
        name = str(settings.get("metric"))
        if name not in known_metrics() or settings.get("hf_evaluate"):
            mark = " (hf_evaluate)" if settings.get("hf_evaluate") else ""
            yield (
                f"{name + mark!r} is no metric of lm-eval (it would be downloaded as code)"
                f"{_nearest_metric(name + mark)}; set allow_code: true if you want that"
            )


def _unsafe(config: TaskKeys) -> Iterator[str]:
    """Settings by which lm-eval, or what it ships, would run code from elsewhere."""
    builder = config.get("dataset_path")
    if builder in ("pandas", "webdataset"):
        yield (
            f"dataset_path {builder!r} may unpickle code; convert the data to JSON lines, or set "
            "allow_code: true"
        )
    if config.get("unsafe_code") is False:
        yield "unsafe_code: false could run generated code unasked; leave it out"
    given = [config.get("metadata"), config.get("dataset_kwargs")]
    for settings in [one for one in given if isinstance(one, dict)]:
        for key in [key for key in _TRUSTED if key in settings]:
            yield (
                f"{key}: {settings[key]!r} could run the code of a repository; leave it out, or "
                "set allow_code: true"
            )


def _nearest_metric(metric: str) -> str:
    nearest = difflib.get_close_matches(metric, known_metrics(), n=1)
    return f", nearest: {nearest[0]}" if nearest else ""
