"""RegMean++: RegMean with inputs that have gone through the merged layers before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.observed import Observed, ObservedMethod, off_diagonal
from evomerge.methods.prepared import TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["RegMeanPlusPlus"]


@dataclass(frozen=True, kw_only=True)
class RegMeanPlusPlus(ObservedMethod):
    """Merge layer by layer; each expert's layer sees what the merged layers before it make.

    One pass over the prompts for every layer and expert.
    """

    name: ClassVar[str] = "regmean_plus_plus"
    summary: ClassVar[str] = "RegMean, layer by layer on the merged layers' outputs"
    formula: ClassVar[str] = (
        "as regmean,  Gᵢ = E[x xᵀ] of expert i's layer after the merged layers before it"
    )
    source: ClassVar[str] = (
        "Nguyen et al. 2025, RegMean++: Enhancing Effectiveness and Generalization of Regression "
        "Mean for Model Merging, arXiv:2508.03121"
    )
    observations: ClassVar[tuple[str, ...]] = ("propagated_gram",)

    off_diagonal: float = off_diagonal(0.1)

    def of_observed(self, tensor: TaskVectors, observed: Observed) -> Sequence[torch.Tensor]:
        """See ``ObservedMethod.of_observed``."""
        from evomerge.methods.regression import regressed

        grams = observed["propagated_gram"]
        return regressed(tensor.all(), grams, self.influence, self.off_diagonal)
