"""Which keys a JSON schema has, by level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["keys_at", "levels_of"]

Schema = Mapping[str, Any]


def keys_at(schema: Schema, path: Sequence[str | int]) -> list[str]:
    """List the keys that one level of a file may have, sorted.

    Args:
        schema: A JSON schema, as pydantic writes it.
        path: Keys and positions that lead to the level.
    """
    forms = list(_forms(schema, schema))
    for part in path:
        inner = [form for one in forms for form in _inside(one, part, schema)]
        forms = inner or forms  # a validator's name leads nowhere
    return sorted({key for form in forms for key in form.get("properties", ())})


def levels_of(schema: Schema, key: str) -> list[tuple[str, ...]]:
    """List the levels that have a key by their paths, e.g. ``("genes", "NAME")``.

    The top level is the empty path; ``N`` stands for a position.
    """
    found: list[tuple[str, ...]] = []
    pending: list[tuple[tuple[str, ...], Schema]] = [((), schema)]
    visited: list[Schema] = []
    while pending:
        path, one = pending.pop(0)
        for form in _forms(one, schema):
            if "properties" in form and any(form is other for other in visited):
                continue
            visited.append(form)
            if key in form.get("properties", ()):
                found.append(path)
            pending += [((*path, name), part) for name, part in _children(form)]
    return list(dict.fromkeys(found))


def _forms(node: Schema, root: Schema) -> Iterator[Schema]:
    """A part of a schema with references followed, once per form that its value may have."""
    if "$ref" in node:
        yield from _forms(root["$defs"][node["$ref"].rpartition("/")[2]], root)
    for union in ("anyOf", "oneOf", "allOf"):
        for form in node.get(union, ()):
            yield from _forms(form, root)
    yield node


def _inside(form: Schema, part: str | int, root: Schema) -> Iterator[Schema]:
    named = form.get("properties", {}).get(part)
    for name, child in _children(form):
        if child is named or (named is None and name == ("N" if isinstance(part, int) else "NAME")):
            yield from _forms(child, root)


def _children(form: Schema) -> Iterator[tuple[str, Schema]]:
    yield from form.get("properties", {}).items()
    for name, keyword in (("NAME", "additionalProperties"), ("N", "items")):
        if isinstance(form.get(keyword), Mapping):
            yield name, form[keyword]
    for part in form.get("prefixItems", ()):
        yield "N", part
