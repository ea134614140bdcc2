"""Task YAML of a user: where its paths point, and whether it would run Python.

lm-eval resolves data files against the working directory and imports whatever ``!function`` names.
Here paths mean the folder of the file that mentions them, and code is found before it can run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.plain_yaml import yaml_reason

__all__ = ["TaskFile", "TaskKeys", "data_faults", "mappings", "read_chain", "with_absolute_paths"]

# Dataset builders that read the files named by `data_files`; with any other `dataset_path` a
# relative name is a file of that Hub repository.
_LOCAL_BUILDERS = ("arrow", "csv", "json", "pandas", "parquet", "text", "webdataset", "xml")

TaskKeys = Mapping[str, Any]  # what a task file says


# As lm-eval parses: another parser might see another tree in the same bytes.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DATA_TAGS = frozenset(yaml.SafeLoader.yaml_constructors) | {"tag:yaml.org,2002:merge"}
_MOST_NODES = 1_000_000  # with every alias written out


class _Reader(_Loader):  # type: ignore[misc]
    """Constructs plain data, and ``None`` for everything else."""


_Reader.add_multi_constructor("", lambda loader, suffix, node: None)


@dataclass(frozen=True)
class TaskFile:
    """One YAML file as written, before includes are merged.

    Attributes:
        path: The file.
        data: Its content; ``None`` stands for whatever ``code`` names.
        code: The ``!function`` and other tags in it that are not data, as ``!tag value``.
    """

    path: Path
    data: TaskKeys
    code: tuple[str, ...]


def read_chain(path: Path) -> list[TaskFile]:
    """Read a task file and, after it, the files it includes, in the order in which keys win.

    Nothing is imported.

    Raises:
        ValueError: A file cannot be read or is no YAML mapping; the message is one line.
    """
    files: list[TaskFile] = []
    pending = [path]
    while pending:
        current = pending.pop(0)
        if all(current != file.path for file in files):
            files.append(_read(current))
            pending = _included(files[-1]) + pending
    return files


def _read(path: Path) -> TaskFile:
    try:
        loader = _Reader(path.read_bytes())
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise ValueError("expected a mapping at the top level")
        tags = _code_tags(root)
        return TaskFile(path, loader.construct_document(root), tuple(tags))
    except (
        OSError,
        ValueError,
        ArithmeticError,
        AttributeError,
        LookupError,
        yaml.YAMLError,
    ) as err:
        # The constructors of tags such as !!bool raise what their Python raises.
        raise ValueError(f"cannot read {path}: {yaml_reason(err)}") from err
    except RecursionError as err:
        raise ValueError(f"cannot read {path}: it is nested too deeply") from err


def _included(file: TaskFile) -> list[Path]:
    """The files of ``include``, last one first because later ones win."""
    named = file.data.get("include") or []
    names = named if isinstance(named, list) else [named]
    return [(file.path.parent / str(name)).resolve() for name in reversed(names)]


def _code_tags(root: yaml.Node) -> list[str]:
    """List the ``!function`` and other non-data tags under a node, as ``!tag value``.

    Raises:
        ValueError: An alias contains itself, or aliases of aliases hold too much.
    """
    found: list[str] = []
    sizes: dict[int, int] = {}  # of the nodes done; 0 while a node is open

    def visit(node: yaml.Node) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise ValueError("an alias contains itself")
            return sizes[id(node)]
        sizes[id(node)] = 0
        if node.tag not in _DATA_TAGS:
            value = node.value if isinstance(node, yaml.ScalarNode) else ""
            found.append(f"{node.tag} {value}".strip())
        size = 1 + sum(visit(child) for child in _children(node))
        if size > _MOST_NODES:
            raise ValueError(f"its aliases stand for more than {_MOST_NODES} values")
        sizes[id(node)] = size
        return size

    visit(root)
    return found


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def mappings(value: object) -> Iterator[TaskKeys]:
    """Yield every mapping in some YAML data, at any depth, each once."""
    seen: set[int] = set()
    pending = [value]
    while pending:
        current = pending.pop()
        if id(current) not in seen and isinstance(current, dict | list):
            seen.add(id(current))
            pending += current.values() if isinstance(current, dict) else current
            if isinstance(current, dict):
                yield current


def with_absolute_paths(config: TaskKeys, folder: Path) -> dict[str, object]:
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


def data_faults(config: TaskKeys) -> list[str]:
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
