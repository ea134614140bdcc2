"""CAT merging: task vectors without the directions in which they disturb what others do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import shared
from evomerge.methods.observed import Observed, ObservedMethod
from evomerge.methods.prepared import TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Cat"]


@dataclass(frozen=True, kw_only=True)
class Cat(ObservedMethod):
    """Take out of each task matrix the output directions that other experts' inputs excite most.

    For each expert k these are found from what the others' task vectors make of its inputs, less
    what they make of their own. What is no linear layer is summed as it is.
    """

    name: ClassVar[str] = "cat"
    summary: ClassVar[str] = "sum of task vectors without conflicting directions"
    formula: ClassVar[str] = (
        "W = W₀ + λ Σ cᵢ Πₖ≠ᵢ(1 − BₖBₖᵀ) τᵢ,  Bₖ: top eigenvectors of Σᵢ≠ₖ τᵢ(aₖGₖ − βaᵢGᵢ)τᵢᵀ"
    )
    source: ClassVar[str] = (
        "Sun et al. 2025, CAT Merging: A Training-Free Approach for Resolving Conflicts in Model "
        "Merging, arXiv:2505.06977"
    )
    observations: ClassVar[tuple[str, ...]] = ("input_gram",)

    removed: float = shared(
        2, "directions taken out for each other expert", low=0, high=1000, prepares=True
    )
    retention: float = shared(
        1.0,
        "how much an expert's own outputs count beside the harm",
        low=0.0,
        high=100.0,
        prepares=True,
    )

    def of_observed(self, tensor: TaskVectors, observed: Observed) -> Sequence[torch.Tensor]:
        """See ``ObservedMethod.of_observed``."""
        vectors = [vector.double() for vector in tensor.all()]
        grams = [
            influence * gram.double()
            for influence, gram in zip(self.influence, observed["input_gram"], strict=True)
        ]
        trimmed = list(vectors)
        for k in range(tensor.n if int(self.removed) else 0):
            others = [i for i in range(tensor.n) if i != k]
            basis = self._harm([vectors[i] for i in others], [grams[i] for i in others], grams[k])
            for i in others:
                trimmed[i] = trimmed[i] - basis @ (basis.T @ trimmed[i])
        return [one.float() for one in trimmed]

    def _harm(
        self, vectors: Sequence[torch.Tensor], own: Sequence[torch.Tensor], gram: torch.Tensor
    ) -> torch.Tensor:
        """Find where others' task vectors do most with one expert's inputs: (outputs, directions).

        Directions that do more good than harm are no part of it.
        """
        import torch

        if not vectors:
            return torch.zeros(len(gram), 0, dtype=torch.float64)
        span = None
        if len(vectors[0]) > len(vectors) * len(gram):  # more outputs than all that is in them
            span, rest = torch.linalg.qr(torch.cat(list(vectors), dim=1))
            vectors = rest.split(len(gram), dim=1)
        harm = torch.stack(
            [v @ (gram - self.retention * g) @ v.T for v, g in zip(vectors, own, strict=True)]
        ).sum(0)
        n = int(self.removed)
        values, directions = torch.linalg.eigh(harm)
        top: torch.Tensor = directions[:, -n:][:, values[-n:] > 0]
        return top if span is None else span @ top

    def otherwise(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.otherwise``: the task vectors as they are."""
        return tensor.all()
