"""What rounding does to a path whose scales are folded into the tensors of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from evomerge.merging.candidate import LiveCandidate, load_model
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe
from evomerge.seeds import seed_for

__all__ = ["FoldError", "fold_error"]

_SEQUENCES, _TOKENS = 4, 64


@dataclass(frozen=True)
class FoldError:
    """Distance of a folder's logits from those of the live candidate.

    Attributes:
        mean: Mean absolute difference over mean absolute logit.
        largest: Largest absolute difference over largest absolute logit.
    """

    mean: float
    largest: float

    def __str__(self) -> str:
        return f"mean {self.mean:.1e}, largest {self.largest:.1e}"


@torch.no_grad()
def fold_error(recipe: Recipe, folder: Path) -> FoldError:
    """Compare a written path with the live one, on random tokens.

    Args:
        recipe: What was written.
        folder: Where.
    """
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts), recipe.dtype)
    candidate.materialise(recipe)
    written = load_model(str(folder), "auto")
    generator = torch.Generator().manual_seed(seed_for(0, "fold_error"))
    n_words = written.config.get_text_config().vocab_size
    tokens = torch.randint(n_words, (_SEQUENCES, _TOKENS), generator=generator)
    live = candidate.model(tokens).logits.double()
    difference = (written(tokens).logits.double() - live).abs()
    return FoldError(
        float(difference.mean() / live.abs().mean()), float(difference.max() / live.abs().max())
    )
