"""Task YAML of a user: where its paths point, and whether it would run Python.

lm-eval resolves data files against the working directory and imports whatever ``!function`` names.
Here paths mean the folder of the file that mentions them, and code is found before it can run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from evomerge.plain_yaml import compose_yaml, read_text, yaml_reason

__all__ = ["TaskFile", "code_tags", "data_faults", "read_chain", "with_absolute_paths"]

# Dataset builders that read the files named by `data_files`; with any other `dataset_path` a
# relative name is a file of that Hub repository.
_LOCAL_BUILDERS = ("arrow", "csv", "json", "pandas", "parquet", "text", "webdataset", "xml")

Config = Mapping[str, object]


@dataclass(frozen=True)
class TaskFile:
    """One YAML file as written, before includes are merged.

    Attributes:
        path: The file.
        root: Its syntax tree; nothing has been constructed from it.
    """

    path: Path
    root: yaml.MappingNode

    def mentions(self, key: str) -> bool:
        """Tell whether the file itself, not one it includes, has ``key`` at its top level."""
        return any(name.value == key for name, _ in self.root.value)


def read_chain(path: Path) -> list[TaskFile]:
    """Read a task file and, after it, the files it includes, in the order in which keys win.

    Raises:
        ValueError: A file cannot be read or is no YAML mapping; the message is one line.
    """
    files: list[TaskFile] = []
    pending = [path]
    while pending:
        current = pending.pop(0)
        if all(current != file.path for file in files):
            files.append(TaskFile(current, _parse(current)))
            pending = _included(files[-1]) + pending
    return files


def _parse(path: Path) -> yaml.MappingNode:
    try:
        root = compose_yaml(read_text(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise ValueError(f"cannot read {path}: {yaml_reason(err)}") from err
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"cannot read {path}: expected a mapping at the top level")
    return root


def _included(file: TaskFile) -> list[Path]:
    """The files of ``include``, last one first because later ones win."""
    for key, value in file.root.value:
        if key.value == "include":
            nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
            return [(file.path.parent / node.value).resolve() for node in reversed(nodes)]
    return []


def code_tags(node: yaml.Node) -> list[str]:
    """List the ``!function`` and other non-data tags under a node, as ``!tag value``."""
    found = []
    if node.tag not in yaml.SafeLoader.yaml_constructors:
        found.append(
            f"{node.tag} {node.value if isinstance(node, yaml.ScalarNode) else ''}".strip()
        )
    for child in _children(node):
        found += code_tags(child)
    return found


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def with_absolute_paths(config: Config, folder: Path) -> dict[str, object]:
    """Copy a task or group config with its data paths resolved against ``folder``.

    Args:
        config: As lm-eval reads it, includes merged. Groups are followed into their members.
        folder: Where relative paths start.

    Returns:
        The copy; untouched are URLs, absolute paths, and files of Hub datasets.
    """
    resolved = dict(config)
    members = config.get("task")
    if isinstance(members, list):
        resolved["task"] = [
            with_absolute_paths(member, folder) if isinstance(member, dict) else member
            for member in members
        ]
    if str(config.get("dataset_path", "")).startswith(("./", "../")):
        resolved["dataset_path"] = str((folder / str(config["dataset_path"])).resolve())
    options = config.get("dataset_kwargs")
    if isinstance(options, dict) and config.get("dataset_path") in _LOCAL_BUILDERS:
        paths = {key: options[key] for key in ("data_files", "data_dir") if key in options}
        resolved["dataset_kwargs"] = options | _absolute_each(paths, folder)
    return resolved


def _absolute_each(paths: dict[str, object], folder: Path) -> dict[str, object]:
    return {key: _absolute(value, folder) for key, value in paths.items()}


def _absolute(value: object, folder: Path) -> object:
    """Resolve a path, or every path in a list or mapping of them."""
    if isinstance(value, dict):
        return _absolute_each(value, folder)
    if isinstance(value, list):
        return [_absolute(entry, folder) for entry in value]
    return value if "://" in str(value) else str((folder / str(value)).resolve())


def data_faults(config: Config) -> list[str]:
    """Find the local data files that a config with absolute paths names and that hold no data."""
    options = config.get("dataset_kwargs")
    if not isinstance(options, dict) or config.get("dataset_path") not in _LOCAL_BUILDERS:
        return []
    named = [path for key in ("data_files", "data_dir") for path in _flat(options.get(key))]
    paths = [Path(path) for path in named if "://" not in path and "*" not in path]
    missing = [f"data file does not exist: {path}" for path in paths if not path.exists()]
    empty = [p for p in paths if p.is_file() and p.stat().st_size == 0]
    return missing + [f"data file is empty: {path}" for path in empty]


def _flat(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _flat(entry)
    elif value is not None:
        yield str(value)
