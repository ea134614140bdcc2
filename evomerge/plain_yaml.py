"""YAML as plain data: the one reader of every file a user writes, lm-eval's tasks excepted.

It bounds what a file may cost, and refuses what YAML 1.1 reads other than it looks.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml
from yaml.reader import ReaderError

from evomerge.errors import Fault, KeyPath, brief, changed

__all__ = ["dump_yaml", "in_file", "parse_yaml", "placed_in", "read_text", "yaml_reason"]

# What is written by hand, or by us, stays far below: the largest resolved experiments have some
# ten thousand values, a dozen levels deep.
_MOST_CHARACTERS = 16 * 2**20
_MOST_LEVELS = 64
_MOST_REPEATED = 100_000  # values that aliases stand for
_LONGEST_KEY = 200
_LONGEST_NUMBER = 100
_LONGEST_REASON = 400

_TAG = "tag:yaml.org,2002:"
_AS_TEXT = (f"{_TAG}timestamp", f"{_TAG}value")
_PLAIN = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_WITH_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$")
_OCTAL = re.compile(r"[-+]?0[0-7_]+$")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_IN_OUR_WORDS = {
    "but found another document": "expected one document, got another after '---'; save each in a "
    "file of its own, and run them in turn",
}
_REFUSALS = (ArithmeticError, AttributeError, LookupError, RecursionError, ValueError)


class _Composer(yaml.SafeLoader):
    """Builds a syntax tree of bounded depth, without cycles; aliases repeat little of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._n_values = 0
        self._n_repeated = 0
        self._sizes: dict[int, int] = {}  # by node: values in it, aliases expanded

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            self._count_alias(node, event)
            return node
        before, self._n_values = self._n_values, self._n_values + 1
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise _fault(f"expected at most {_MOST_LEVELS} levels in one another", event)
        node = super().compose_node(parent, index)
        self._level -= 1
        self._sizes[id(node)] = self._n_values - before
        return node

    def _count_alias(self, node: yaml.Node | None, event: Any) -> None:
        if id(node) not in self._sizes:
            raise _fault(f"expected no alias inside of what it names, got *{event.anchor}", event)
        self._n_values += self._sizes[id(node)]
        self._n_repeated += self._sizes[id(node)]
        if self._n_repeated > _MOST_REPEATED:
            raise _fault(f"expected aliases of at most {_MOST_REPEATED:,} values, got more", event)


class _Loader(_Composer):
    """Reads keys as they are written, each once, and only what is plain data."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.tag in _PLAIN:
                key.tag = f"{_TAG}str"  # YAML 1.1 would make ``true`` of the key ``on``
            if key.value in seen:
                raise _fault(f"expected each key once, got {brief(key.value)} again", key)
            if not key.value.isprintable() or not 0 < len(key.value) <= _LONGEST_KEY:
                wanted = f"a key of 1 to {_LONGEST_KEY} printable characters"
                raise _fault(f"expected {wanted}, got {brief(key.value)}", key)
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        if node.tag not in _PLAIN:
            raise _fault(f"expected plain data, got the tag {brief(_short(node.tag))}", node)
        try:
            return super().construct_object(node, deep)
        except _REFUSALS:
            kind = _short(node.tag)
            raise _fault(
                f"expected a value of the type {kind}, got {brief(node.value)}", node
            ) from None


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what any reader would not take for text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in _AS_TEXT]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(f"{_TAG}float", _WITH_EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """Read YAML text as plain data: text, numbers, switches, lists, and mappings with text as keys.

    Dates are text, ``1e-3`` is a number.

    Raises:
        yaml.YAMLError: It is no YAML, more than plain data, too large, or would be read other than
            it looks (``1:30`` as 90, ``010`` as 8).
    """
    if len(text) > _MOST_CHARACTERS:
        raise yaml.YAMLError(f"expected at most {_MOST_CHARACTERS:,} characters, got more")
    try:
        loader = _Loader(text)
    except ReaderError as err:  # the only error of the library without a line
        line = text.count("\n", 0, err.position)
        mark = yaml.Mark("", err.position, line, 0, None, 0)
        raise _fault(f"expected text, got the character #x{err.character:04x}", mark) from None
    try:
        return loader.get_single_data()
    except _REFUSALS as err:
        raise _fault(f"expected YAML, got {brief(str(err))}", loader.get_mark()) from None


def read_text(path: Path) -> str:
    """Read a file as text, as far as it matters: no more than is refused."""
    with path.open(encoding="utf-8") as file:
        return file.read(_MOST_CHARACTERS + 1)


def yaml_reason(err: Exception) -> str:
    """Say in one line what is wrong and where, without the library's picture of it."""
    if isinstance(err, yaml.MarkedYAMLError) and err.problem and err.problem_mark:
        mark, problem = err.problem_mark, _IN_OUR_WORDS.get(err.problem, err.problem)
        text = f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    else:
        text = getattr(err, "strerror", None) or str(err)
    return shorten(text, _LONGEST_REASON, placeholder=" …")


def placed_in(file: Path) -> AbstractContextManager[None]:
    """Say in which file, and on which line of it, the faults that leave the block are."""
    return changed(lambda fault: in_file(fault, file))


def in_file(fault: Fault, file: Path) -> Fault:
    """Say in which YAML file, and on which line of it, a fault is."""
    try:
        line = _line(read_text(file), fault.path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # it is no file, or changed since
        line = None
    return fault.at(str(file) if line is None else f"{file}:{line}")


def _line(text: str, path: KeyPath) -> int | None:
    """Find the line of what a path leads to, or of as much of it as is there."""
    node, line = _tree(text), None
    for part in path:
        if (child := _child(node, part)) is None:
            return line
        mark, node = child
        line = mark.line + 1
    return line


@lru_cache(maxsize=4)  # a file may have many faults
def _tree(text: str) -> yaml.Node | None:
    return _Loader(text).get_single_node()


def _child(node: yaml.Node | None, part: str | int) -> tuple[Any, yaml.Node] | None:
    """Follow a key or a position: where it is written, and what it leads to."""
    if isinstance(node, yaml.MappingNode):
        found = ((key.start_mark, value) for key, value in node.value if key.value == part)
        return next(found, None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark, node.value[part]
    return None


def dump_yaml(content: object) -> str:
    """Write plain data in the given key order; ``parse_yaml`` reads it as it was."""
    return yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )


def _check_scalar(node: yaml.ScalarNode) -> None:
    """Refuse text that cannot be written or printed, and numbers that are not what they look."""
    if _CONTROL.search(node.value):
        raise _fault(f"expected text without control characters, got {brief(node.value)}", node)
    if node.tag not in (f"{_TAG}int", f"{_TAG}float"):
        return
    if len(node.value) > _LONGEST_NUMBER:
        wanted = f"a number of at most {_LONGEST_NUMBER} characters"
        raise _fault(f"expected {wanted}, got {brief(node.value)}", node)
    rule = "to base 60" if ":" in node.value else "as octal" if _is_octal(node.value) else ""
    if rule:
        raise _fault(
            f"{node.value} would be read {rule}; write the number without "
            f"{'a colon' if ':' in node.value else 'a leading zero'}, or text in quotes",
            node,
        )


def _is_octal(number: str) -> bool:
    return _OCTAL.match(number) is not None and int(number, 8) != int(number)


def _fault(problem: str, place: yaml.Node | yaml.Event | yaml.Mark) -> yaml.MarkedYAMLError:
    mark: Any = place if isinstance(place, yaml.Mark) else place.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _short(tag: str) -> str:
    return tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
