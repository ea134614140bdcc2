"""``config.json`` read and written the way transformers does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError, brief
from evomerge.models.files import file_in, read_json

__all__ = ["config_text", "n_layers", "read_config", "without_keys"]

# Keys that speak of other files than those of a merge: remote code, and where to look for weights
# and configs.
_ABOUT_FILES = ("auto_map", "configuration_files", "transformers_weights")
_COUNT = re.compile(r"(\w+_)?(num|n)_(\w+_)?(layers?|blocks?|experts?)|\w+_layers|\w*depth")
_MOST = 10_000  # of what a model is built of one by one; today's have some hundred


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's config by transformers' own reader, which knows infinity, for instance.

    Raises:
        CheckpointError: It is missing, is no JSON object, lies outside the folder, or speaks of
            more layers or experts than can be built.
    """
    from transformers import PretrainedConfig

    content = read_json(file_in(folder, "config.json"))
    for name in content.get("configuration_files") or ():  # for other versions of transformers
        file_in(folder, str(name))
    try:
        config, _ = PretrainedConfig.get_config_dict(folder, local_files_only=True)
    except Exception as err:  # a reader of many keys, each with its own ways to refuse
        reason = " ".join(str(err).split())
        raise CheckpointError(
            f"expected a config.json that transformers can read in {folder}: {reason}"
        ) from err
    _require_built_soon(config, folder)
    return {key: value for key, value in config.items() if key != "_commit_hash"}


def _require_built_soon(config: Mapping[str, Any], folder: Path) -> None:
    for key, value in config.items():
        if isinstance(value, Mapping):
            _require_built_soon(value, folder)
        elif isinstance(value, int | float) and value > _MOST and _COUNT.fullmatch(str(key)):
            raise CheckpointError(
                f"expected {key} of {_MOST:,} at most in the config.json in {folder}, got "
                f"{brief(value)}"
            )


def n_layers(folder: Path) -> int:
    """Read how many layers the language model of a folder has.

    Raises:
        CheckpointError: See ``read_config``; or the config does not say.
    """
    config = read_config(folder)
    inside: dict[str, Any] = config.get("text_config") or config.get("llm_config") or {}
    number = config.get("num_hidden_layers", inside.get("num_hidden_layers"))
    if not isinstance(number, int):
        raise CheckpointError(f"expected num_hidden_layers in the config.json in {folder}")
    return number


def config_text(config: Mapping[str, Any]) -> str:
    """Write a config for a folder with plain weights of its own, and no code.

    Args:
        config: From ``read_config``.

    Returns:
        JSON; numbers that it does not know are written as ``{"__float__": "Infinity"}``.
    """
    plain = _plain(without_keys(config, *_ABOUT_FILES))
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def without_keys(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Leave keys out, also of the configs within a config."""
    return {
        key: without_keys(value, *keys) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if key not in keys
    }


def _plain(value: Any) -> Any:
    """Spell out what JSON cannot hold, as ``PretrainedConfig.to_json_string`` does."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": "NaN" if math.isnan(value) else "-Infinity"[value > 0 :]}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
