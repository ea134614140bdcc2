"""The dtype of a checkpoint as a whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from evomerge.models.checkpoint import DTYPES, Checkpoint

__all__ = ["model_dtype"]

_FLOATING = {
    str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values() if dtype.is_floating_point
}


def model_dtype(checkpoint: Checkpoint, names: Iterable[str]) -> torch.dtype:
    """Tell in which dtype a model is meant to be loaded.

    Args:
        checkpoint: Its files.
        names: Tensors that count, all floating, at least one.

    Returns:
        The dtype that the config names, for the language model if not for all; if it names none,
        the one that most elements are stored in.
    """
    named = [_named(part) for part in (checkpoint.config, checkpoint.config.get("text_config"))]
    elements: Counter[torch.dtype] = Counter()
    if not any(named):
        for name in names:
            elements[checkpoint.dtype(name)] += math.prod(checkpoint.shape(name))
    return next(filter(None, named), None) or elements.most_common(1)[0][0]


def _named(config: Any) -> torch.dtype | None:
    if not isinstance(config, Mapping):
        return None
    found = config.get("dtype") or config.get("torch_dtype")
    return _FLOATING.get(str(found).removeprefix("torch."))
