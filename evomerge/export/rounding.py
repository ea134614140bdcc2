"""What a path is whose scales are folded into the tensors of a checkpoint: how far from its words.

Rounding sets the folder apart from the live candidate. Both are apart from a stream that is really
scaled, since what norms add to the variance (epsilon) is not scaled with it: by the square of the
scales, where the stream is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from evomerge.merging.candidate import LiveCandidate, load_model
from evomerge.merging.sources import Sources
from evomerge.models.branches import branches_of
from evomerge.models.structure import decoder_layers
from evomerge.recipe.path import cumulative_scales
from evomerge.recipe.recipe import Recipe
from evomerge.seeds import seed_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FoldError", "fold_error"]

_SEQUENCES, _TOKENS = 4, 64


@dataclass(frozen=True)
class FoldError:
    """Distance of a folder's logits from those of the live candidate.

    Attributes:
        mean: Mean absolute difference over mean absolute logit.
        largest: Largest absolute difference over largest absolute logit.
        epsilon: As ``mean``, but of the folder and a stream that is really scaled, in float32: what
            the norms' epsilon does.
    """

    mean: float
    largest: float
    epsilon: float = 0.0

    def __str__(self) -> str:
        return f"mean {self.mean:.1e}, largest {self.largest:.1e}"


@torch.no_grad()
def fold_error(recipe: Recipe, folder: Path) -> FoldError:
    """Compare a written path with the live one, on random tokens.

    Args:
        recipe: What was written.
        folder: Where.
    """
    candidate = LiveCandidate(Sources.of(recipe), recipe.dtype)
    candidate.materialise(recipe)
    written = load_model(str(folder), "auto")
    generator = torch.Generator().manual_seed(seed_for(0, "fold_error"))
    n_words = written.config.get_text_config().vocab_size
    tokens = torch.randint(n_words, (_SEQUENCES, _TOKENS), generator=generator)
    live = candidate.model(tokens).logits.double()
    difference = (written(tokens).logits.double() - live).abs()
    del candidate  # one model in float32 instead of two
    return FoldError(
        float(difference.mean() / live.abs().mean()),
        float(difference.max() / live.abs().max()),
        _epsilon(recipe, written.float(), tokens),
    )


def _epsilon(recipe: Recipe, model: PreTrainedModel, tokens: torch.Tensor) -> float:
    """Compare a model with itself when its norms' epsilon is scaled with the stream."""
    found = model(tokens).logits.double()
    scales = cumulative_scales(recipe.path)
    path, _ = decoder_layers(model)
    layers = list(model.get_submodule(path).children())
    branches = branches_of(model.config.get_text_config().model_type)
    own = {id(module) for layer in layers for module in layer.modules()}
    for layer, scale in zip(layers, scales, strict=True):
        outputs = branches.outputs if branches else ()
        _scale_epsilon([m for n, m in layer.named_children() if n not in outputs], scale)
    _scale_epsilon([m for m in model.modules() if id(m) not in own], scales[-1])
    literal = model(tokens).logits.double()
    return float((found - literal).abs().mean() / literal.abs().mean())


def _scale_epsilon(norms: Sequence[nn.Module], scale: float) -> None:
    """Norms of a stream divided by a scale see it as if their epsilon was times its square."""
    for module in norms:
        for name in {"eps", "variance_epsilon"} & vars(module).keys():
            setattr(module, name, getattr(module, name) / scale**2)
