"""A Llama-shaped set of 110M parameters, for the benchmarks."""

from __future__ import annotations

import torch

__all__ = ["EXPERTS", "HIDDEN", "LAYERS", "MLP", "VOCABULARY", "random_tensors"]

EXPERTS = 3
HIDDEN, MLP, LAYERS, VOCABULARY = 768, 2048, 12, 32768


def random_tensors(seed: int) -> list[torch.Tensor]:
    """Draw the tensors of one bfloat16 model."""
    generator = torch.Generator().manual_seed(seed)
    layer = [(HIDDEN, HIDDEN)] * 4 + [(MLP, HIDDEN)] * 2 + [(HIDDEN, MLP)] + [(HIDDEN,)] * 2
    shapes = [(VOCABULARY, HIDDEN), *layer * LAYERS, (HIDDEN,)]
    return [torch.randn(shape, generator=generator, dtype=torch.bfloat16) for shape in shapes]
