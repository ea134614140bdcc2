"""RegMean: linear layers that do on each expert's inputs nearly what that expert does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.observed import Observed, ObservedMethod, off_diagonal
from evomerge.methods.prepared import TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["RegMean"]


@dataclass(frozen=True, kw_only=True)
class RegMean(ObservedMethod):
    """Solve the linear regression of every linear layer in closed form; average the rest.

    The rest are embeddings and heads tied to one, norms, biases, and matrices that are stored the
    other way round (GPT-2) or fused with those of other experts of a mixture.
    """

    name: ClassVar[str] = "regmean"
    summary: ClassVar[str] = "least squares over the outputs of linear layers"
    formula: ClassVar[str] = (
        "W = W₀ + λ Σ cᵢ τᵢ aᵢGᵢ (Σ aⱼGⱼ)⁻¹,  Gᵢ = E[x xᵀ] of expert i's inputs"
    )
    source: ClassVar[str] = (
        "Jin et al. 2023, Dataless Knowledge Fusion by Merging Weights of Language Models, "
        "arXiv:2212.09849"
    )
    observations: ClassVar[tuple[str, ...]] = ("input_gram",)

    off_diagonal: float = off_diagonal(0.9)

    def of_observed(self, tensor: TaskVectors, observed: Observed) -> Sequence[torch.Tensor]:
        """See ``ObservedMethod.of_observed``."""
        from evomerge.methods.regression import regressed

        grams = observed["input_gram"]
        return regressed(tensor.all(), grams, self.influence, self.off_diagonal)
