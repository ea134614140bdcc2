"""A Llama-shaped set of 110M parameters, for the benchmarks."""

from __future__ import annotations

import torch

__all__ = ["EXPERTS", "random_tensors"]

EXPERTS = 3
_HIDDEN, _MLP, _LAYERS, _VOCABULARY = 768, 2048, 12, 32768


def random_tensors(seed: int) -> list[torch.Tensor]:
    """Draw the tensors of one bfloat16 model."""
    generator = torch.Generator().manual_seed(seed)
    layer = [(_HIDDEN, _HIDDEN)] * 4 + [(_MLP, _HIDDEN)] * 2 + [(_HIDDEN, _MLP)] + [(_HIDDEN,)] * 2
    shapes = [(_VOCABULARY, _HIDDEN), *layer * _LAYERS, (_HIDDEN,)]
    return [torch.randn(shape, generator=generator, dtype=torch.bfloat16) for shape in shapes]
