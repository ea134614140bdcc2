"""A tensor's place in a decoder: the words for it, and what a name tells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["KINDS", "LANGUAGE_KINDS", "Kind", "TensorRole", "roles_from_names"]

Kind = Literal["attention", "mlp", "norm", "embedding", "head", "vision", "projector"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LANGUAGE_KINDS: tuple[Kind, ...] = tuple(
    kind for kind in KINDS if kind not in ("vision", "projector")
)
"""Those of decoders; the others are whole parts of models of vision and language."""

# The first number that is a component of its own: "model.layers.3.mlp.experts.5.up" is in layer 3.
_NUMBERED = re.compile(r"^(?P<stem>.*?)\.?\b(?P<layer>\d+)\.")
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
        layer: Decoder layer, from 0. Tensors outside the layers take the nearest one: embeddings,
            vision tower and projector the first, all others (final norm, head) the last.
        kind: What module it belongs to. Norms inside attention are norms; routers, experts and
            whatever else a layer holds are mlp. All of a vision tower is vision.
        in_layer: Whether it belongs to a decoder layer, rather than borrowing its number.
    """

    layer: int
    kind: Kind
    in_layer: bool = True


def roles_from_names(names: Sequence[str], n_layers: int | None = None) -> dict[str, TensorRole]:
    """Guess the roles of tensors.

    The decoder layers are taken to be the numbered modules with the most tensors.

    Args:
        names: Tensor names.
        n_layers: Decoder layers, where known; else one more than the highest number found.

    Returns:
        By name. Tensors without a number, or with one that no layer has, are outside the layers.
    """
    numbered = {name: match for name in names if (match := _NUMBERED.match(name))}
    stems = Counter(match["stem"] for match in numbered.values())
    decoder = max(stems, key=lambda stem: stems[stem], default="")
    layers = {n: int(match["layer"]) for n, match in numbered.items() if match["stem"] == decoder}
    if n_layers is None:
        n_layers = 1 + max(layers.values(), default=0)
    return {name: _role(name, layers.get(name), n_layers) for name in names}


def _role(name: str, layer: int | None, n_layers: int) -> TensorRole:
    kind: Kind = next((k for k, pattern in _KIND_PATTERNS if pattern.search(name)), "mlp")
    if layer is not None and layer < n_layers:
        return TensorRole(layer, kind)
    return TensorRole(0 if kind == "embedding" else n_layers - 1, kind, in_layer=False)
