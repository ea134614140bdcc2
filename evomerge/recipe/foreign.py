"""Files that are no recipe, known by their keys: other kinds of ours, and those of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError

__all__ = ["is_mixture", "refuse_foreign"]

_EXPERIMENT = "an experiment; 'evomerge run {path}' searches, 'evomerge merge' takes a recipe"
_RECIPE = (
    "a recipe; 'evomerge merge {path} --out DIR' merges it, 'evomerge run' takes an experiment"
)
_EVOLVE = (
    "a file of mergekit-evolve; 'evomerge import {path} --out experiment.yaml' writes the "
    "experiment that searches the same"
)
_MOE = (
    "a file of mergekit-moe, which puts models beside one another as a mixture of experts; "
    "'evomerge moe {path} --out DIR' does that, 'evomerge merge' takes a recipe of one model"
)


def refuse_foreign(content: Mapping[str, Any], path: Path, *, wanted: str) -> None:
    """Refuse a file of another kind, whose keys would only be called unknown.

    Args:
        content: Of the file.
        path: Named in the fault.
        wanted: ``a recipe``, ``an experiment`` or ``a mixture of experts``.

    Raises:
        ConfigError: The file is recognised; the message says what it is and what to do with it.
    """
    kind = _kind(content)
    if kind is not None and not kind.startswith(wanted):
        raise ConfigError(f"{path}: expected {wanted}, got {kind.format(path=path)}")


def is_mixture(content: Mapping[str, Any]) -> bool:
    """Tell whether these are the keys of a file of mergekit-moe."""
    experts = content.get("experts")
    return "gate_mode" in content or (isinstance(experts, list) and "base_model" in content)


def _kind(content: Mapping[str, Any]) -> str | None:
    if "genome" in content:
        return _EVOLVE
    if is_mixture(content):
        return _MOE
    if "objectives" in content or "evaluators" in content:
        return _EXPERIMENT
    if "merge_method" in content or "rules" in content or {"method", "experts"} <= content.keys():
        return _RECIPE
    return None
