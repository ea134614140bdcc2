"""MaTS: a merge that matches each expert in its own task parameter subspace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import shared
from evomerge.methods.observed import Observed, ObservedMethod, off_diagonal
from evomerge.methods.prepared import TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Mats", "conjugate_gradients"]

_CONVERGED = 1e-20  # of the right-hand side's squared norm


@dataclass(frozen=True, kw_only=True)
class Mats(ObservedMethod):
    """Weigh deviations from each expert by its inputs and by what its loss feels of its outputs.

    The equations are solved by conjugate gradients from the mean, which directions that no expert
    uses keep. The rest, as of RegMean, is averaged; a head alone is solved by its inputs.
    """

    name: ClassVar[str] = "mats"
    summary: ClassVar[str] = "least squares over inputs and gradients of linear layers"
    formula: ClassVar[str] = (
        "W = W₀ + λ Σ cᵢ Xᵢ,  Σⱼ aⱼBⱼ Xᵢ Aⱼ = aᵢBᵢ τᵢ Aᵢ,  A = E[x xᵀ], B = E[g gᵀ]"
    )
    source: ClassVar[str] = (
        "Tam et al. 2023, Merging by Matching Models in Task Parameter Subspaces, arXiv:2312.04339"
    )
    observations: ClassVar[tuple[str, ...]] = ("input_gram", "gradient_gram")

    off_diagonal: float = off_diagonal(1.0)
    iterations: float = shared(100, "steps of the solver", low=0, high=10000, prepares=True)

    def of_observed(self, tensor: TaskVectors, observed: Observed) -> Sequence[torch.Tensor]:
        """See ``ObservedMethod.of_observed``."""
        import torch

        from evomerge.methods.regression import with_off_diagonal

        inputs = [with_off_diagonal(gram, self.off_diagonal) for gram in observed["input_gram"]]
        eye = torch.eye(tensor.shape[0], dtype=torch.float64)
        outputs = [
            influence * with_off_diagonal(gram, self.off_diagonal)
            for influence, gram in zip(
                self.influence, observed.get("gradient_gram", [eye] * tensor.n), strict=True
            )
        ]

        def weighed(x: torch.Tensor) -> torch.Tensor:
            return torch.stack([b @ x @ a for a, b in zip(inputs, outputs, strict=True)]).sum(0)

        return [
            conjugate_gradients(
                weighed, b @ read().double() @ a, start.double(), int(self.iterations)
            ).float()
            for a, b, read, start in zip(
                inputs, outputs, tensor.read, self.otherwise(tensor), strict=True
            )
        ]


def conjugate_gradients(
    apply: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    start: torch.Tensor,
    iterations: int,
) -> torch.Tensor:
    """Solve a linear system with a symmetric positive semi-definite operator.

    Args:
        apply: The operator, on tensors of the shape of ``right``.
        right: Of its range.
        start: First guess; what the operator does not see of it stays.
        iterations: Most steps; it ends before where nothing is left.

    Source:
        Hestenes & Stiefel 1952.
    """
    x, residual = start, right - apply(start)
    direction, size = residual, residual.square().sum()
    enough = _CONVERGED * right.square().sum()
    for _ in range(iterations):
        if size <= enough:
            break
        image = apply(direction)
        curvature = (direction * image).sum()
        if curvature <= 0:  # rounding alone is left
            break
        step = size / curvature
        x, residual = x + step * direction, residual - step * image
        before, size = size, residual.square().sum()
        direction = residual + size / before * direction
    return x
