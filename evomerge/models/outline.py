"""What is known of a model before any of its code is imported, which takes seconds.

Its settings with the defaults of its type, the class of its tokenizer, and the sizes of its
parameters; asked once of transformers (see ``asked``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from evomerge.errors import CheckpointError
from evomerge.fingerprint import fingerprint
from evomerge.models.asked import asked_once
from evomerge.models.vocabulary import tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "ModelOutline",
    "PlainConfig",
    "load_tokenizer",
    "model_outline",
    "plain_config",
    "tokenizer_of",
]

Setting = bool | int | float | str | list[int] | None


class PlainConfig(SimpleNamespace):
    """Numbers and words of a config as attributes, by all names that its type has for them."""

    text_config: PlainConfig | None

    def get_text_config(self) -> PlainConfig:
        """Return the settings of the language model, which a model of images, too, has apart."""
        return self.text_config or self


@dataclass(frozen=True)
class _Settings:
    own: dict[str, Setting]
    text: dict[str, Setting] | None = None


def plain_config(config: Mapping[str, Any]) -> PlainConfig | None:
    """Fill in what a config leaves to its type.

    Args:
        config: A checkpoint's ``config.json``.

    Returns:
        ``None`` where transformers does not know the type.
    """
    found = asked_once(_Settings, lambda: _asked_settings(config), config)
    if found is None:
        return None
    text = None if found.text is None else PlainConfig(**found.text, text_config=None)
    return PlainConfig(**found.own, text_config=text)


def _asked_settings(config: Mapping[str, Any]) -> _Settings | None:
    from evomerge.models.structure import full_config

    full = full_config(config)
    if full is None:
        return None
    text = full.get_text_config()
    return _Settings(_plain(full), None if text is full else _plain(text))


def _plain(config: Any) -> dict[str, Setting]:
    values = config.to_dict()
    values |= {name: values[own] for name, own in config.attribute_map.items() if own in values}
    return {
        name: value
        for name, value in values.items()
        if value is None
        or isinstance(value, bool | int | str)
        or (isinstance(value, list) and all(isinstance(part, int) for part in value))
        or (isinstance(value, float) and math.isfinite(value))
    }


@dataclass(frozen=True)
class _Class:
    module: str
    name: str


@contextmanager
def tokenizer_of(model: str) -> Iterator[None]:
    """Say in one line that a model has no tokenizer; every class has its own ways to refuse files.

    Raises:
        CheckpointError: The block raised anything.
    """
    try:
        yield
    except Exception as err:
        reason = " ".join(str(err).split())
        raise CheckpointError(f"expected {model} to have a tokenizer: {reason}") from err


def load_tokenizer(folder: Path, model: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer that ``AutoTokenizer`` loads.

    Args:
        folder: Of a model on this machine.
        model: What it is called; absent: as the folder.

    Raises:
        CheckpointError: Something is missing or wrong.
    """
    with tokenizer_of(model or str(folder)):
        tokens_of(folder)  # of what is no vocabulary a library may die
        return _loaded_tokenizer(folder)


def _loaded_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    loaded: list[PreTrainedTokenizerBase] = []

    def ask() -> _Class | None:
        from transformers import AutoTokenizer

        loaded.append(AutoTokenizer.from_pretrained(str(folder)))
        kind = type(loaded[0])
        is_theirs = kind.__module__.startswith("transformers.")
        return _Class(kind.__module__, kind.__name__) if is_theirs else None

    # Names of folders and files, and what some files say, all decide about the class.
    names = sorted(file.name for file in folder.iterdir())
    content = fingerprint(*sorted(folder.glob("*.json")))
    kind = asked_once(_Class, ask, str(folder), names, content)
    if loaded or kind is None:
        return loaded[0]
    found: PreTrainedTokenizerBase = getattr(import_module(kind.module), kind.name).from_pretrained(
        str(folder)
    )
    return found


@dataclass(frozen=True)
class _Sizes:
    n_bytes: tuple[int, ...]  # of every parameter
    supports_sdpa: bool


@dataclass(frozen=True, eq=False)
class ModelOutline:
    """A model's settings and sizes.

    Attributes:
        config: Its settings.
        dtype: Of the parameters that do not ask for one of their own.
    """

    config: PlainConfig
    dtype: torch.dtype
    _n_bytes: tuple[int, ...] = field(repr=False)

    def parameters(self) -> Iterator[torch.Tensor]:
        """Yield flat tensors without storage, of as many bytes as each parameter has."""
        for n in self._n_bytes:
            yield torch.empty(n, dtype=torch.uint8, device="meta")


def model_outline(
    config: Mapping[str, Any], dtype: torch.dtype, attention: str | None = None
) -> ModelOutline | None:
    """Describe the model that ``empty_model`` builds.

    Args:
        config: A checkpoint's ``config.json``.
        dtype: See ``empty_model``.
        attention: How it is computed; ``None``: as transformers sees fit.

    Returns:
        ``None`` where that builds none.

    Raises:
        CheckpointError: See ``empty_model``.
    """
    sizes = asked_once(_Sizes, lambda: _asked_sizes(config, dtype), config, str(dtype))
    settings = plain_config(config)
    if sizes is None or settings is None:
        return None
    settings._attn_implementation = attention or ("sdpa" if sizes.supports_sdpa else "eager")
    return ModelOutline(settings, dtype, sizes.n_bytes)


def _asked_sizes(config: Mapping[str, Any], dtype: torch.dtype) -> _Sizes | None:
    from evomerge.models.structure import empty_model

    model = empty_model(config, dtype)
    if model is None:
        return None
    return _Sizes(tuple(p.nbytes for p in model.parameters()), bool(model._supports_sdpa))
