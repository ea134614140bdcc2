"""YAML into typed records: every fault of a file is reported at once, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from evomerge.errors import ConfigError, brief, did_you_mean, quotes_hint
from evomerge.plain_yaml import dump_yaml, parse_yaml, read_text, yaml_reason
from evomerge.schema_keys import keys_at, levels_of

__all__ = ["parse", "parse_yaml", "read_yaml", "write_yaml"]

T = TypeVar("T")
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_TEXT_EXPECTED = ("string_type", "literal_error")
_MOST_ERRORS, _MOST_FAULTS, _MOST_LEVELS = 1000, 50, 3
_EXPECTED = {  # where pydantic would name its own types
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dataclass_type", "dict_type"), "keys and values"
    ),
    "list_type": "a list",
    "int_type": "a whole number",
    "float_type": "a number",
    "too_short": "at least one",
}


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.

    Raises:
        ConfigError: The file is missing, is no YAML, or holds no mapping.
    """
    try:
        content = parse_yaml(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"expected a file at {path}, found none") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise ConfigError(f"{path} is not readable YAML: {yaml_reason(err)}") from err
    if not isinstance(content, Mapping):
        got = "an empty file" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"expected keys and values in {path}, got {got}")
    return content


def write_yaml(content: Mapping[str, Any], header: str = "") -> str:
    """Write a mapping as YAML in the given key order.

    Args:
        content: Plain data.
        header: Comment lines above it, without ``#``.
    """
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + dump_yaml(content)


def parse(
    record: type[T], content: object, where: str, elsewhere: Mapping[str, str] | None = None
) -> T:
    """Check plain data against a record type.

    Args:
        record: A dataclass or pydantic model; its annotations are the schema.
        content: Plain data, as YAML gives it.
        where: Named in every fault, e.g. the file.
        elsewhere: Ends the fault of an unknown key that is known to belong elsewhere.

    Returns:
        The record.

    Raises:
        ConfigError: One line per fault; unknown keys name the nearest known one.
    """
    adapter = TypeAdapter(record)
    errors = _switches_for_numbers(adapter, content)
    try:
        checked = adapter.validate_python(content)
    except ValidationError as err:
        known = {error["loc"] for error in errors}
        found = err.errors(include_url=False, include_context=False)[:_MOST_ERRORS]
        errors += [error for error in found if error["loc"] not in known]
    if not errors:
        return checked
    schema = adapter.json_schema()
    lines = [
        _fault_line(error, schema, where, elsewhere or {}) for error in _of_members_meant(errors)
    ]
    raise ConfigError(*_at_most(list(dict.fromkeys(lines)), where))


class _Switch:
    """Stands for true or false where pydantic would take them for 1 and 0."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on

    def __repr__(self) -> str:
        return "true" if self._is_on else "false"


def _switches_for_numbers(adapter: TypeAdapter[T], content: object) -> list[ErrorDetails]:
    """Find the numbers for which YAML has a switch: ``on``, ``yes``, ``true``."""
    if (marked := _marked(content)) is content:
        return []
    try:
        adapter.validate_python(marked)
    except ValidationError as err:
        found = err.errors(include_url=False, include_context=False)
        either = {error["loc"][:-1] for error in found if error["loc"][-1:] == ("bool",)}
        numbers = [error for error in found if error["type"] in ("int_type", "float_type")]
        return [error for error in numbers if error["loc"][:-1] not in either]
    return []


def _marked(content: object) -> object:
    """Put a ``_Switch`` in place of every boolean; the same object if there is none."""
    if isinstance(content, bool):
        return _Switch(is_on=content)
    if isinstance(content, Mapping):
        marked = {key: _marked(value) for key, value in content.items()}
        return marked if any(marked[key] is not content[key] for key in marked) else content
    if isinstance(content, list):
        parts = [_marked(part) for part in content]
        changed = any(new is not old for new, old in zip(parts, content, strict=True))
        return parts if changed else content
    return content


def _at_most(faults: list[str], where: str) -> list[str]:
    more = len(faults) - _MOST_FAULTS
    return faults if more <= 0 else [*faults[:_MOST_FAULTS], f"{where}: and {more} more faults"]


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


def _fault_line(
    error: ErrorDetails, schema: Mapping[str, Any], where: str, elsewhere: Mapping[str, str]
) -> str:
    # Union members and validators appear in the path as type names; keys of the file do not.
    types = schema.get("$defs", ())
    parts = [p for p in error["loc"] if p not in types and not str(p).endswith(("]", ")"))]
    place = ": ".join([where, ".".join(map(str, parts))] if parts else [where])
    message, got = error["msg"].removeprefix("Value error, "), brief(error["input"])
    if error["type"] in _UNKNOWN_KEY:
        key = str(parts[-1])
        return f"{place}: unknown key{elsewhere.get(key) or _meant(key, parts[:-1], schema)}"
    if error["type"] == "missing":
        return f"{place}: this key is required"
    if error["type"] in _EXPECTED:
        return f"{place}: expected {_EXPECTED[error['type']]}, got {got}"
    if error["type"] in ("value_error", "assertion_error"):
        return f"{place}: {message}"
    hint = quotes_hint(error["input"]) if error["type"] in _TEXT_EXPECTED else ""
    return f"{place}: {message[0].lower()}{message[1:]}, got {got}{hint}"


def _meant(key: str, path: Sequence[str | int], schema: Mapping[str, Any]) -> str:
    """Say where a key belongs that another level has, else which key of this level is near."""
    known = keys_at(schema, path)
    if key not in known and (levels := levels_of(schema, key)):
        places = [f"under {'.'.join(level)}" if level else "at the top level" for level in levels]
        return f" here; it belongs {' or '.join(places[:_MOST_LEVELS])}"
    return did_you_mean(key, (other for other in known if other != key), cutoff=0.5)
