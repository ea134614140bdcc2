"""What each tensor of a decoder is: its layer and its kind, read from its name and the config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from evomerge.errors import CheckpointError

__all__ = ["KINDS", "Architecture", "Kind", "TensorRole"]

Kind = Literal["attention", "mlp", "norm", "embedding", "head"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
# First match wins; the patterns cover the names used by transformers' decoder families.
_KIND_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("head", re.compile(r"(^|\.)(lm_head|embed_out|output_projection)\.")),
    ("norm", re.compile(r"(norm|(^|\.)ln_\w+)(\.\w+)?$|_norm\.|layernorm")),
    ("embedding", re.compile(r"(embed|(^|\.)(wte|wpe)\.)")),
    ("attention", re.compile(r"(attn|attention)")),
)


@dataclass(frozen=True)
class TensorRole:
    """Place of one tensor in the model.

    Attributes:
        layer: Decoder layer, from 0. Tensors outside the layers take the nearest one: embeddings
            the first, final norm and head the last.
        kind: What module it belongs to.
    """

    layer: int
    kind: Kind


class Architecture:
    """Roles of all tensors of one checkpoint.

    Args:
        config: The checkpoint's ``config.json``.
        names: Tensor names.

    Raises:
        CheckpointError: No layers can be recognised in the names.
    """

    def __init__(self, config: Mapping[str, Any], names: Iterable[str]) -> None:
        layers = {name: _layer_in(name) for name in names}
        found = [layer for layer in layers.values() if layer is not None]
        if not found:
            raise CheckpointError(
                "expected tensor names with a layer index such as 'model.layers.0.mlp…', found "
                f"none in a checkpoint of type {config.get('model_type', 'unknown')!r}"
            )
        self.n_layers = max(found) + 1
        self.roles = {name: self._role(name, layer) for name, layer in layers.items()}

    def _role(self, name: str, layer: int | None) -> TensorRole:
        kind: Kind = next((k for k, pattern in _KIND_PATTERNS if pattern.search(name)), "mlp")
        if layer is None:
            layer = 0 if kind == "embedding" else self.n_layers - 1
        return TensorRole(layer=layer, kind=kind)


def _layer_in(name: str) -> int | None:
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None
