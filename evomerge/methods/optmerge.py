"""OptMerge: WUDI's loss with experts cut to their strongest directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import choice, shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["OptMerge"]


@dataclass(frozen=True, kw_only=True)
class OptMerge(PreparedMethod):
    """Descend to little interference among experts of a share of their rank.

    For experts that were adapters: each cut to its top directions, gradient descent with momentum
    from the mean. For fully tuned ones (``experts: full``): what each has beyond the mean is cut,
    and Adam starts from the sum. An expert's coefficient multiplies its part of the start, and a
    part, one of n, of what the steps changed. What is no matrix is averaged; the paper averages
    embeddings and head, too.
    """

    name: ClassVar[str] = "optmerge"
    summary: ClassVar[str] = "least interference among experts of low rank"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ τ̃ᵢ,  Σ τ̃ᵢ ≈ argmin Σ ‖(τ − tᵢ) Fᵢᵀ‖²/‖τᵢ‖² from mean τᵢ,  "
        "tᵢ = Uᵢ Σᵢ Vᵢᵀ of rank r/n,  Fᵢ = Σᵢ Vᵢᵀ"
    )
    source: ClassVar[str] = (
        "Wei et al. 2025, Unifying Multimodal Large Language Model Capabilities and Modalities via "
        "Model Merging (OptMerge), arXiv:2505.19892"
    )

    experts: str = choice(("adapters", "full"), "how the experts were tuned", prepares=True)
    steps: float = shared(300, "steps of the descent", low=0, high=1e5, prepares=True)

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        from evomerge.methods.algebra import decomposed, task_decomposition
        from evomerge.methods.interference import InterferenceLoss, adam, sgd

        n, taus = tensor.n, tensor.all()
        rank, mean = max(1, min(tensor.shape) // n), sum(taus[1:], taus[0]) / n
        cut = [task_decomposition(tensor, i).top(rank) for i in range(n)]
        rows = [part.values[:, None] * part.right for part in cut]
        if self.experts == "full":
            targets = [mean + decomposed(tau - mean).top(rank).matrix for tau in taus]
            starts, step = taus, adam(1e-5)
        else:
            targets = [part.matrix for part in cut]
            starts, step = [tau / n for tau in taus], sgd(1e-4, 0.9)
        loss = InterferenceLoss.of(targets, rows, [tau.norm() for tau in taus])
        start = sum(starts[1:], starts[0])
        change = (loss.descend(start, step, int(self.steps)) - start) / n
        return [each + change for each in starts]
