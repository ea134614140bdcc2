"""Sizes of Llama models: those that are measured, and miniatures of them for the dry run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["LARGE", "MIDDLE", "Shape", "Tensors", "flat_tensors", "sizes"]

Tensors = list[torch.Tensor]

_ALIGNMENT = 128  # elements, of every tensor in a flat buffer


@dataclass(frozen=True)
class Shape:
    """A Llama.

    Attributes:
        hidden: Width of the stream.
        mlp: Width of the feed-forward layer.
        layers: Decoder layers.
        heads: Of queries.
        kv_heads: Of keys and values.
        vocabulary: Tokens.
    """

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


LARGE = {False: Shape(4096, 11008, 32, 32, 32, 32000), True: Shape(8, 12, 1, 1, 1, 16)}
MIDDLE = {False: Shape(1536, 8960, 28, 12, 2, 151936), True: Shape(32, 64, 2, 2, 1, 256)}


def sizes(shape: Shape, layers: int) -> list[tuple[int, ...]]:
    """List the shapes of the tensors of a model, with fewer layers if need be; heads untied."""
    hidden, mlp = shape.hidden, shape.mlp
    attention = [(hidden, hidden)] * 4
    layer = [*attention, (mlp, hidden), (mlp, hidden), (hidden, mlp), (hidden,), (hidden,)]
    return [(shape.vocabulary, hidden), *layer * layers, (hidden,), (shape.vocabulary, hidden)]


def flat_tensors(
    shapes: list[tuple[int, ...]], device: torch.device
) -> tuple[torch.Tensor, Tensors]:
    """Draw the tensors of a bfloat16 model inside one flat buffer, which is returned, too."""
    steps = [-(-torch.Size(shape).numel() // _ALIGNMENT) * _ALIGNMENT for shape in shapes]
    flat = torch.randn(sum(steps), dtype=torch.bfloat16, device=device)
    parts = flat.split(steps)
    return flat, [
        part[: torch.Size(shape).numel()].view(shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]
