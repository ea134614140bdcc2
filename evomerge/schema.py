"""YAML into typed records: every fault of a file is reported at once, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from evomerge.errors import ConfigError, did_you_mean

__all__ = ["parse", "parse_yaml", "read_yaml", "write_yaml"]

T = TypeVar("T")
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_EXPECTED = {  # where pydantic would name its own types
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dataclass_type", "dict_type"), "keys and values"
    ),
    "list_type": "a list",
    "too_short": "at least one",
}


class _Loader(yaml.SafeLoader):
    """Reads keys as they are written, each once.

    YAML 1.1 would make ``true`` of the key ``on``, and would let the second of two equal keys win.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
            if (key.tag, key.value) in seen:
                problem = f"expected each key once, got {key.value!r} again"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def parse_yaml(text: str) -> Any:
    """Read YAML text as plain data.

    Raises:
        yaml.YAMLError: It is no YAML, or more than plain data.
    """
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.

    Raises:
        ConfigError: The file is missing, is no YAML, or holds no mapping.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"expected a file at {path}, found none") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise ConfigError(f"{path} is not readable YAML: {_yaml_reason(err)}") from err
    if not isinstance(content, Mapping):
        got = "an empty file" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"expected keys and values in {path}, got {got}")
    return content


def _yaml_reason(err: Exception) -> str:
    """Say what is wrong and where, without the library's picture of it."""
    if isinstance(err, yaml.MarkedYAMLError) and err.problem and err.problem_mark:
        mark = err.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {err.problem}"
    return " ".join(str(err).split())


def write_yaml(content: Mapping[str, Any], header: str = "") -> str:
    """Write a mapping as YAML in the given key order.

    Args:
        content: Plain data.
        header: Comment lines above it, without ``#``.
    """
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )


def parse(record: type[T], content: object, where: str) -> T:
    """Check plain data against a record type.

    Args:
        record: A dataclass or pydantic model; its annotations are the schema.
        content: Plain data, as YAML gives it.
        where: Named in every fault, e.g. the file.

    Returns:
        The record.

    Raises:
        ConfigError: One line per fault; unknown keys name the nearest known one.
    """
    adapter = TypeAdapter(record)
    try:
        return adapter.validate_python(content)
    except ValidationError as err:
        schema = adapter.json_schema()
        known, types = sorted(set(_property_names(schema))), frozenset(schema.get("$defs", ()))
        errors = _of_members_meant(err.errors())
        faults = dict.fromkeys(_fault_line(error, known, types, where) for error in errors)
        raise ConfigError(*faults) from None


def _of_members_meant(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out what follows from another fault.

    A mapping is no text where a union also says what is wrong in the mapping; a default could not
    be worked out from values that are wrong themselves.
    """
    return [
        error
        for error in errors
        if error["type"] != "default_factory_not_called"
        and not (_is_no_text(error) and any(_is_beside(other, error) for other in errors))
    ]


def _is_no_text(error: ErrorDetails) -> bool:
    return error["type"] == "string_type" and isinstance(error["input"], Mapping)


def _is_beside(other: ErrorDetails, error: ErrorDetails) -> bool:
    return other is not error and other["loc"][: len(error["loc"]) - 1] == error["loc"][:-1]


def _fault_line(error: ErrorDetails, known: list[str], types: frozenset[str], where: str) -> str:
    # Union members and validators appear in the path as type names; keys of the file do not.
    parts = [str(part) for part in error["loc"]]
    path = ".".join(p for p in parts if p not in types and not p.endswith(("]", ")")))
    if error["type"] in _UNKNOWN_KEY:
        key = str(error["loc"][-1])
        return f"{where}: {path}: unknown key{did_you_mean(key, known, cutoff=0.5)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where}: {path}: this key is required"
    if error["type"] in _EXPECTED:
        return f"{where}: {path}: expected {_EXPECTED[error['type']]}, got {error['input']!r}"
    if error["type"] in ("value_error", "assertion_error"):
        return f"{where}: {path}: {message}" if path else f"{where}: {message}"
    return f"{where}: {path}: {message[0].lower()}{message[1:]}, got {error['input']!r}"


def _property_names(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from _property_names(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _property_names(part)
