"""``--set KEY=VALUE``: change single keys of an experiment from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import yaml

from evomerge.errors import ConfigError, KeyPath, brief, placed
from evomerge.plain_yaml import parse_yaml, yaml_reason

__all__ = ["apply_overrides", "changed_by"]


def apply_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the content with overrides applied.

    Args:
        content: An experiment as plain data; not changed.
        overrides: ``budget.trials=50`` and the like; values are YAML, list items go by number:
            ``evaluators[0].limit=9``, or ``evaluators.0.limit=9``.

    Raises:
        ConfigError: An override has no ``=``, or passes through something that holds no keys.
    """
    if isinstance(overrides, str):  # of which each letter would be one
        raise ConfigError(f"expected a list of KEY=VALUE, got {brief(overrides)}")
    changed = deepcopy(dict(content))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"expected --set KEY=VALUE, got {brief(override)}")
        with placed(f"--set {key}"):
            _set(changed, key, _parsed(value))
    return changed


def changed_by(overrides: Sequence[str]) -> dict[KeyPath, str]:
    """Tell by which override a value was set: its path, and how messages name the override."""
    keys = [override.partition("=")[0] for override in overrides]
    paths = [[int(part) if part.isdecimal() else part for part in _parts(key)] for key in keys]
    return {tuple(path): f"--set {key}" for path, key in zip(paths, keys, strict=True)}


def _parts(key: str) -> list[str]:
    """Split ``evaluators[0].limit``, or ``evaluators.0.limit``."""
    return key.replace("[", ".").replace("]", "").split(".")


def _parsed(value: str) -> object:
    try:
        return parse_yaml(value)
    except yaml.YAMLError as err:
        reason = yaml_reason(err)
        raise ConfigError(f"expected a YAML value, got {brief(value)}: {reason}") from None


def _set(content: dict[str, Any], key: str, value: object) -> None:
    *parents, last = _parts(key)
    place: Any = content
    for part in parents:
        if isinstance(place, list):
            place = _item(place, part)
        else:
            if part == "sampler" and isinstance(place.get(part), str):
                place[part] = {"name": place[part]}  # the mapping that a bare name stands for
            place = place.setdefault(part, {})
        if not isinstance(place, (dict, list)):
            raise ConfigError(
                f"{part} is {brief(place)}, which has no keys; if it names a preset, "
                "copy that ('evomerge presets copy') and change the copy"
            )
    if isinstance(place, list):
        _item(place, last)
        place[int(last)] = value
    else:
        place[last] = value


def _item(place: list[Any], part: str) -> Any:
    if part not in map(str, range(len(place))):
        wanted = f"a number from 0 to {len(place) - 1} for a list"
        raise ConfigError(f"expected {wanted}, got {brief(part)}")
    return place[int(part)]
