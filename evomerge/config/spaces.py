"""Search spaces by their ``kind``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evomerge.errors import ConfigError, SpaceError
from evomerge.schema import parse
from evomerge.space.dataflow.dataflow import DataflowSpace
from evomerge.space.dataflow.hybrid import HybridSpace
from evomerge.space.dataflow.spec import HybridSpec, PathSpec
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.space.spec import ParameterSpec

__all__ = ["build_space"]

Content = Mapping[str, Any]


def build_space(content: Content, models: ModelSet, where: str) -> SearchSpace:
    """Build a search space from plain data.

    Args:
        content: The keys of a space file.
        models: What is mixed.
        where: Named in faults.

    Raises:
        ConfigError: Listing every fault, one line each.
    """
    kind = content.get("kind", "parameter")
    if kind not in _KINDS:
        raise ConfigError(f"{where}: kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
    try:
        return _KINDS[kind](content, models, where)
    except SpaceError as err:
        raise ConfigError(*(f"{where}: {fault}" for fault in str(err).splitlines())) from None


def _parameter(content: Content, models: ModelSet, where: str) -> SearchSpace:
    return ParameterSpace(parse(ParameterSpec, content, where), models)


def _dataflow(content: Content, models: ModelSet, where: str) -> SearchSpace:
    path = {key: value for key, value in content.items() if key != "kind"}
    return DataflowSpace(parse(PathSpec, path, where), models)


def _hybrid(content: Content, models: ModelSet, where: str) -> SearchSpace:
    return HybridSpace(parse(HybridSpec, content, where), models)


_KINDS: Mapping[str, Callable[[Content, ModelSet, str], SearchSpace]] = {
    "parameter": _parameter,
    "dataflow": _dataflow,
    "hybrid": _hybrid,
}
