"""The words for a tensor's place in a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["KINDS", "Kind", "TensorRole"]

Kind = Literal["attention", "mlp", "norm", "embedding", "head"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class TensorRole:
    """Place of one tensor in the model.

    Attributes:
        layer: Decoder layer, from 0. Tensors outside the layers take the nearest one: embeddings
            the first, all others (final norm, head) the last.
        kind: What module it belongs to. Norms inside attention are norms; routers, experts and
            whatever else a layer holds are mlp.
        in_layer: Whether it belongs to a decoder layer, rather than borrowing its number.
    """

    layer: int
    kind: Kind
    in_layer: bool = True
