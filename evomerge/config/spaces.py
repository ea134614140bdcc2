"""Search spaces by their ``kind``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evomerge.errors import ConfigError, SpaceError, brief
from evomerge.schema import parse
from evomerge.space.dataflow.dataflow import DataflowSpace
from evomerge.space.dataflow.hybrid import HybridSpace
from evomerge.space.dataflow.spec import HybridSpec, PathSpec
from evomerge.space.layer_swap import LayerSwapSpec, layer_swap_space
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.space.spec import ParameterSpec

__all__ = ["build_space"]

# By kind: the record that the keys are read into, and what builds the space from it.
_KINDS: Mapping[str, tuple[type[Any], Callable[[Any, ModelSet], SearchSpace]]] = {
    "parameter": (ParameterSpec, ParameterSpace),
    "layer_swap": (LayerSwapSpec, layer_swap_space),
    "dataflow": (PathSpec, DataflowSpace),
    "hybrid": (HybridSpec, HybridSpace),
}


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
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(f"{where}: kind: expected one of {', '.join(_KINDS)}, got {brief(kind)}")
    spec_type, build = _KINDS[kind]
    spec = parse(spec_type, content, where)
    try:
        return build(spec, models)
    except SpaceError as err:
        raise ConfigError(*(f"{where}: {fault}" for fault in str(err).splitlines())) from None
