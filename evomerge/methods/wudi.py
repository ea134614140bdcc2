"""WUDI: the merged matrix that differs least from each expert's where that expert's inputs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import choice, shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Wudi"]


@dataclass(frozen=True, kw_only=True)
class Wudi(PreparedMethod):
    """Minimise interference, taking the rows of a task matrix for directions of its inputs.

    By default as published: 300 steps of Adam from the sum, few enough that they stop early, and of
    one size whatever the size of changes. ``closed`` solves for the minimum, pulled towards the sum
    by ``ridge``; then an expert's coefficient multiplies its term of the solution, else its task
    vector and a part, one of n, of what the steps changed; it takes a tenth of the time. What is no
    matrix is averaged.
    """

    name: ClassVar[str] = "wudi"
    summary: ClassVar[str] = "least interference on the directions that experts changed"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ τ̃ᵢ,  Σ τ̃ᵢ ≈ argmin Σ ‖(τ − τᵢ) τᵢᵀ‖²/‖τᵢ‖² from Σ τᵢ;  "
        "closed: τ̃ᵢ = (τᵢ Cᵢ + μ τᵢ)(Σ Cⱼ + μ I)⁻¹,  Cᵢ = τᵢᵀτᵢ/‖τᵢ‖²"
    )
    source: ClassVar[str] = (
        "Cheng et al. 2025, Whoever Started the Interference Should End It: Guiding Data-Free "
        "Model Merging via Task Vectors, arXiv:2503.08099"
    )

    solver: str = choice(("adam", "closed"), "steps from the sum, or equations", prepares=True)
    steps: float = shared(300, "steps of Adam", low=0, high=1e5, prepares=True)
    rate: float = shared(1e-5, "learning rate of Adam", low=0.0, high=1.0, prepares=True)
    ridge: float = shared(
        0.01,
        "closed: pull towards the sum, relative to the mean curvature",
        low=1e-6,
        high=1e6,
        prepares=True,
    )

    def prepared_values(self) -> tuple[str, ...]:
        """See ``PreparedMethod.prepared_values``: those of the solver."""
        return ("solver", "ridge") if self.solver == "closed" else ("solver", "steps", "rate")

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        from evomerge.methods.algebra import row_factor
        from evomerge.methods.interference import InterferenceLoss, adam

        taus = tensor.all()
        rows = [row_factor(tensor, i) for i in range(tensor.n)]
        loss = InterferenceLoss.of(taus, rows, [tau.norm() for tau in taus])
        if self.solver == "closed":
            return loss.solved(taus, self.ridge)
        start = sum(taus[1:], taus[0])
        change = (loss.descend(start, adam(self.rate), int(self.steps)) - start) / tensor.n
        return [tau + change for tau in taus]
