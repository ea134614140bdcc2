"""Search spaces by their ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.errors import ConfigError, SpaceError
from evomerge.schema import parse
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.space.spec import ParameterSpec

__all__ = ["build_space"]


def build_space(content: Mapping[str, Any], models: ModelSet, where: str) -> SearchSpace:
    """Build a search space from plain data.

    Args:
        content: The keys of a space file.
        models: What is mixed.
        where: Named in faults.

    Raises:
        ConfigError: Listing every fault, one line each.
    """
    kind = content.get("kind", "parameter")
    if kind != "parameter":
        raise ConfigError(f"{where}: kind: expected 'parameter', got {kind!r}")
    spec = parse(ParameterSpec, content, where)
    try:
        return ParameterSpace(spec, models)
    except SpaceError as err:
        raise ConfigError(*(f"{where}: {fault}" for fault in str(err).splitlines())) from None
