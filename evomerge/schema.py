"""YAML into typed records: every fault of a file is reported at once.

What is wrong can also be left out (``fit``), so that the rest is looked at in the same go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from operator import eq
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from evomerge.errors import ConfigError, Fault, KeyPath, brief, near_name, quotes_hint
from evomerge.plain_yaml import dump_yaml, parse_yaml, read_text, yaml_reason
from evomerge.schema_keys import keys_at, levels_of

__all__ = ["NO_GAPS", "Fitted", "Gaps", "fit", "parse", "parse_yaml", "read_yaml", "write_yaml"]

T = TypeVar("T")

# Kept: to build the schema of a record takes longer than a check against it.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing",)
_TEXT_EXPECTED = ("string_type", "literal_error")
_MOST_ERRORS, _MOST_FAULTS, _MOST_LEVELS, _MOST_ROUNDS = 1000, 50, 3, 8
_EXPECTED = {  # where pydantic would name its own types
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dataclass_type", "dict_type"), "keys and values"
    ),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    "string_type": "text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
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


@dataclass(frozen=True)
class Gaps:
    """Places in plain data, as written, of what was left out because it is wrong."""

    paths: frozenset[KeyPath] = frozenset()

    def touch(self, *path: str | int) -> bool:
        """Tell whether something is left out at a path, around it or in it."""
        return any(all(map(eq, gap, path)) for gap in self.paths)

    def left(self, content: Any, at: KeyPath = ()) -> Any:
        """Give what is left of plain data."""
        if isinstance(content, Mapping):
            inner = {key: (value, (*at, key)) for key, value in content.items()}
            return {k: self.left(*one) for k, one in inner.items() if one[1] not in self.paths}
        if isinstance(content, list):
            items = [(value, (*at, i)) for i, value in enumerate(content)]
            return [self.left(*one) for one in items if one[1] not in self.paths]
        return content

    def written(self, path: KeyPath) -> KeyPath:
        """Turn a path in what is left into the path as written: positions may have moved."""
        found: KeyPath = ()
        for part in path:
            if isinstance(part, int):
                for gap in sorted(g[-1] for g in self._items if g[:-1] == found):
                    part += gap <= part  # noqa: PLW2901
            found = (*found, part)
        return found

    def beside(self, faults: Iterable[Fault]) -> list[Fault]:
        """Leave out faults, of what is left, that are only there because of the gaps."""
        return [fault for fault in faults if not self.touch(*self.written(fault.path))]

    @property
    def _items(self) -> list[tuple[Any, ...]]:
        return [path for path in self.paths if isinstance(path[-1], int)]


NO_GAPS = Gaps()


@dataclass(frozen=True)
class Fitted(Generic[T]):
    """Plain data as far as it fits a record.

    Attributes:
        value: The record without what is wrong; ``None`` if nothing is left of it.
        faults: What is wrong.
        gaps: Where; what follows from that is no fault of its own.
    """

    value: T | None
    faults: tuple[Fault, ...] = ()
    gaps: Gaps = NO_GAPS


def parse(record: type[T], content: object, elsewhere: Mapping[str, str] | None = None) -> T:
    """Check plain data against a record type.

    Args:
        record: A dataclass or pydantic model; its annotations are the schema.
        content: Plain data, as YAML gives it.
        elsewhere: Ends the fault of an unknown key that is known to belong elsewhere.

    Returns:
        The record.

    Raises:
        ConfigError: Every fault; unknown keys name the nearest known one.
    """
    adapter: TypeAdapter[T] = _adapter(record)
    found = _validated(adapter, content)
    if not isinstance(found, _Errors):
        return found
    reading = _Reading(adapter, content)
    places = reading.by_path(found)
    faults = [reading.fault(*place, elsewhere or {}) for place in places.items()]
    raise ConfigError(*_at_most(faults))


def fit(
    record: type[T],
    content: object,
    *,
    instead: Mapping[str, Mapping[str, Any]] | None = None,
    gaps: Gaps = NO_GAPS,
) -> Fitted[T]:
    """Check plain data against a record type, and make the record without what is wrong.

    Args:
        record: See ``parse``.
        content: Plain data, as YAML gives it.
        instead: By key of the top level: what stands in where that is left out.
        gaps: What to leave out from the start.
    """
    adapter, faults = _adapter(record), list[Fault]()
    stand_ins = instead or {}
    for _ in range(_MOST_ROUNDS):
        left = gaps.left(content)
        for key in [key for key in stand_ins if (key,) in gaps.paths]:
            left = {**stand_ins[key], **left}
        found = _validated(adapter, left)
        if not isinstance(found, _Errors):
            return Fitted(found, tuple(faults), gaps)
        reading, more = _Reading(adapter, left), set[KeyPath]()
        for path, errors in reading.by_path(found).items():
            if not gaps.touch(*(place := gaps.written(path))):
                faults.append(replace(reading.fault(path, errors, {}), path=place))
            more |= {gaps.written(hole) for hole in _left_out(path, reading, errors)}
        gaps = Gaps(gaps.paths | {path for path in more if path or not stand_ins})
        if () in gaps.paths or len(faults) > _MOST_FAULTS:
            break
    return Fitted(None, tuple(_at_most(faults)), gaps)


class _Errors(list[ErrorDetails]):
    """What pydantic finds wrong."""


def _validated(adapter: TypeAdapter[T], content: object) -> T | _Errors:
    errors = _Errors(_switches_for_numbers(adapter, content))
    try:
        value = adapter.validate_python(content)
    except ValidationError as err:
        known = {error["loc"] for error in errors}
        found = err.errors(include_url=False, include_context=False)[:_MOST_ERRORS]
        errors += [error for error in found if error["loc"] not in known]
        return errors
    return errors or value


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


def _at_most(faults: list[Fault]) -> list[Fault]:
    more = len(faults) - _MOST_FAULTS
    return faults if more <= 0 else [*faults[:_MOST_FAULTS], Fault((), f"and {more} more faults")]


def _is_no_text(error: ErrorDetails) -> bool:
    return error["type"] == "string_type" and isinstance(error["input"], Mapping)


class _Reading:
    """What came, beside what was expected: says what pydantic finds wrong in the words of a file.

    Args:
        adapter: What was expected.
        content: What came.
    """

    def __init__(self, adapter: TypeAdapter[Any], content: object) -> None:
        self._schema = adapter.json_schema()
        self._content = content

    def by_path(self, errors: list[ErrorDetails]) -> dict[KeyPath, list[ErrorDetails]]:
        """Sort errors by their place in the file; those of one place are one fault."""
        places: dict[KeyPath, list[ErrorDetails]] = {}
        for error, path in self._of_members_meant(errors):
            places.setdefault(path, []).append(error)
        misspelt = {self.meant(path) for path, found in places.items() if _is(found, _UNKNOWN_KEY)}
        return {
            path: found
            for path, found in places.items()
            if not (_is(found, _MISSING) and path in misspelt)
        }

    def _of_members_meant(self, errors: list[ErrorDetails]) -> list[tuple[ErrorDetails, KeyPath]]:
        """Leave out what follows from another fault; give the rest with its place.

        A mapping is no text where a union also says what is wrong in the mapping; a default could
        not be worked out from values that are wrong themselves.
        """
        found = [(e, self._path(e)) for e in errors if e["type"] != "default_factory_not_called"]
        of_mappings = [path for error, path in found if not _is_no_text(error)]
        return [
            (error, path)
            for error, path in found
            if not (_is_no_text(error) and any(p[: len(path)] == path for p in of_mappings))
        ]

    def _path(self, error: ErrorDetails) -> KeyPath:
        """Leave out of pydantic's path what is no key: members of unions, validators."""
        path: KeyPath = ()
        node = self._content
        for part in error["loc"]:
            n_items = len(node) if isinstance(node, list | tuple) else 0
            is_item = isinstance(part, int) and part < n_items
            if is_item or (isinstance(node, Mapping) and part in node):
                path, node = (*path, part), node[part]  # type: ignore[index]
        last = error["loc"][-1:]
        is_absent = last != path[-1:] and last and last[0] in keys_at(self._schema, path)
        return (*path, *last) if is_absent else path

    def meant(self, path: KeyPath) -> KeyPath | None:
        """Find the known key, not given itself, that an unknown one is near."""
        known = keys_at(self._schema, path[:-1])
        key, level = str(path[-1]), self._content
        for part in path[:-1]:
            level = level[part]  # type: ignore[index]
        name = near_name(key, (other for other in known if other != key), cutoff=0.5)
        is_given = isinstance(level, Mapping) and name in level
        return None if name is None or is_given else (*path[:-1], name)

    def fault(
        self, path: KeyPath, errors: list[ErrorDetails], elsewhere: Mapping[str, str]
    ) -> Fault:
        """Say what is wrong at one place."""
        error = errors[0]
        message, got = error["msg"].removeprefix("Value error, "), brief(error["input"])
        if _is(errors, _UNKNOWN_KEY):
            known = elsewhere.get(str(path[-1]))
            text, hint = self._unknown(path) if known is None else (known, "")
            return Fault(path, f"unknown key{text}", hint)
        if _is(errors, _MISSING):
            return Fault(path, "this key is required")
        wanted = dict.fromkeys(_EXPECTED.get(one["type"], "") for one in errors)
        hint = quotes_hint(error["input"]) if error["type"] in _TEXT_EXPECTED else ""
        if "" not in wanted:
            return Fault(path, f"expected {' or '.join(wanted)}, got {got}", hint)
        if error["type"] in ("value_error", "assertion_error"):
            return Fault(path, message)
        return Fault(path, f"{message[0].lower()}{message[1:]}, got {got}", hint)

    def _unknown(self, path: KeyPath) -> tuple[str, str]:
        """Say where a key belongs that another level has, else which key of this level is near."""
        key, known = str(path[-1]), keys_at(self._schema, path[:-1])
        if key not in known and (levels := levels_of(self._schema, key)):
            places = [
                f"under {'.'.join(level)}" if level else "at the top level" for level in levels
            ]
            return f" here; it belongs {' or '.join(places[:_MOST_LEVELS])}", ""
        name = near_name(key, (other for other in known if other != key), cutoff=0.5)
        return "", f"did you mean {name!r}?" if name else ""


def _is(errors: list[ErrorDetails], types: Collection[str]) -> bool:
    return errors[0]["type"] in types


def _left_out(path: KeyPath, reading: _Reading, errors: list[ErrorDetails]) -> set[KeyPath]:
    """Tell what must go, for a record to be without what is wrong at a place."""
    if _is(errors, _UNKNOWN_KEY):
        meant = reading.meant(path)
        return {path} if meant is None else {path, meant}
    return {path, path[:-1]} if _is(errors, _MISSING) else {path}
