"""Finding tasks by name: the user's folder first, lm-eval's own index only where needed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    code_tags,
    data_faults,
    read_chain,
    with_absolute_paths,
)

__all__ = ["is_public", "leaf_tasks", "open_index"]

Entry = Any  # lm_eval's index entry: name, yaml_path, cfg (functions as text), tags
Config = Mapping[str, Any]


def open_index(suite: Suite) -> tuple[TaskManager, dict[str, list[str]]]:
    """Index the tasks a suite names, checked and with data paths made absolute.

    Returns:
        The index, and what is wrong by the name of the task that must not be loaded for it: unknown
        names (with the nearest), unreadable YAML, missing data files, and code that
        ``suite.allow_code`` does not permit.
    """
    folder = [str(suite.include_path)] if suite.include_path else []
    manager = TaskManager(include_path=folder, include_defaults=False)
    index = manager.task_index
    local = set(index)
    if _unknown(index, suite.tasks):
        for name, entry in builtin_index().items():
            index.setdefault(name, entry)
    faults = _name_faults(suite, index)
    for name in _reachable(index, suite.tasks):
        if name in local and index[name].yaml_path is not None:
            found = [f"evaluator {suite.name!r}: {f}" for f in _localise(index[name], suite)]
            faults |= {name: found} if found else {}
    return manager, faults


def is_public(manager: TaskManager, name: str) -> bool:
    """Tell whether a task ships with lm-eval, rather than being the user's own."""
    entry = manager.task_index.get(name)
    path = None if entry is None else entry.yaml_path
    return path is not None and BUILTIN_TASKS in Path(path).parents


def leaf_tasks(manager: TaskManager, names: Sequence[str]) -> list[str]:
    """List the indexed tasks that names stand for, groups and tags expanded."""
    index = manager.task_index
    return [name for name in _reachable(index, names) if not _members(index[name])]


def _members(entry: Entry) -> list[str]:
    """Names a group or tag refers to; members a group defines in place are left out."""
    if entry.cfg is None:  # a tag
        return sorted(entry.tags)
    members = entry.cfg.get("task")
    if not isinstance(members, list):
        return []
    return list(_references(members))


def _references(members: Sequence[str | Config]) -> Iterator[str]:
    for member in members:
        if isinstance(member, str):
            yield member
        elif isinstance(member.get("task"), list):
            yield from _references(member["task"])
        elif "dataset_path" not in member:
            yield member.get("task") or member["group"]


def _reachable(index: Mapping[str, Entry], names: Sequence[str]) -> list[str]:
    """Known names that can be reached from ``names``, each once, in order of discovery."""
    found: list[str] = []
    pending = list(names)
    while pending:
        name = pending.pop(0)
        if name in index and name not in found:
            found.append(name)
            pending += _members(index[name])
    return found


def _unknown(index: Mapping[str, Entry], names: Sequence[str]) -> list[str]:
    """Names, given or referred to, that the index does not hold."""
    referred = [m for name in _reachable(index, names) for m in _members(index[name])]
    return [name for name in dict.fromkeys([*names, *referred]) if name not in index]


def _name_faults(suite: Suite, index: Mapping[str, Entry]) -> dict[str, list[str]]:
    faults = {}
    for name in _unknown(index, suite.tasks):
        nearest = difflib.get_close_matches(name, index, n=3)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        faults[name] = [f"evaluator {suite.name!r}: unknown task {name!r}{hint}"]
    if faults and suite.include_path:
        faults[name] += _unreadable(suite.include_path)  # one of these may be what is missing
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
    coded = any(code_tags(file.root) for file in chain)
    faults = [] if suite.allow_code else _code_faults(entry, users)
    if not faults:
        # Without code the index already holds the whole config, and lm-eval need not read the file.
        config = load_config(chain[0].path) if coded else entry.cfg
        mentioning = [file for file in chain if file.mentions("dataset_kwargs")] or chain
        entry.cfg = with_absolute_paths(config, mentioning[0].path.parent)
        entry.yaml_path = None
        faults = [
            f"task {entry.name!r} ({chain[0].path}): {fault}" for fault in data_faults(entry.cfg)
        ]
    return faults


def _code_faults(entry: Entry, files: Sequence[TaskFile]) -> list[str]:
    """What in a user's task would run Python that lm-eval did not ship."""
    faults = [
        f"task {entry.name!r} would run code ({tag} in {file.path}); "
        "set allow_code: true if you trust it"
        for file in files
        for tag in code_tags(file.root)
    ]
    if faults:
        return faults
    foreign = [metric for metric in _metrics(entry.cfg) if metric not in known_metrics()]
    faults += [
        f"task {entry.name!r}: {metric!r} is no metric of lm-eval (it would be downloaded as code)"
        f"{_nearest_metric(metric)}; set allow_code: true if you want that"
        for metric in foreign
    ]
    if entry.cfg.get("dataset_path") in ("pandas", "webdataset"):
        faults.append(
            f"task {entry.name!r}: dataset_path {entry.cfg['dataset_path']!r} may unpickle code; "
            "convert the data to JSON lines, or set allow_code: true"
        )
    return faults


def _metrics(config: Config) -> Iterator[str]:
    """Metric names of a task, or of a group's members; one marked ``hf_evaluate`` as such."""
    for metric in config.get("metric_list") or []:
        name = str(metric.get("metric"))
        yield f"{name} (hf_evaluate)" if metric.get("hf_evaluate") else name
    members = config.get("task")
    for member in members if isinstance(members, list) else []:
        if isinstance(member, dict):
            yield from _metrics(member)


def _nearest_metric(metric: str) -> str:
    nearest = difflib.get_close_matches(metric, known_metrics(), n=1)
    return f", nearest: {nearest[0]}" if nearest else ""
