"""OPCM: experts one after another, each without what lies in the directions merged so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import PerExpert, Scalar, choice, per_expert, shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Opcm"]


@dataclass(frozen=True, kw_only=True)
class Opcm(PreparedMethod):
    """Add experts in order, each projected off the top directions of the merge before it.

    Its part in the block of top singular directions, and on the diagonal of the others, is taken
    out. The sum is scaled to the mean length of task vectors: tensor by tensor, where the paper's
    factor is one for the whole model (``norm: none`` leaves it to ``lambda``). What is no matrix is
    added up and scaled likewise.
    """

    name: ClassVar[str] = "opcm"
    summary: ClassVar[str] = "experts added in order, off the directions merged before"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ ρ Σ cᵢ (τᵢ − U [UᵀτᵢV]∘M Vᵀ),  U, V of the sum before i,  M: top block and "
        "diagonal,  ρ = mean‖τᵢ‖/‖Σ …‖"
    )
    source: ClassVar[str] = (
        "Tang et al. 2025, Merging Models on the Fly Without Retraining: A Sequential Approach to "
        "Scalable Continual Model Merging, arXiv:2501.09522"
    )

    position: PerExpert = per_expert(
        0.0,
        "experts are added by this, lowest first, else in recipe order",
        low=0.0,
        high=1.0,
        search=(0.0, 1.0),
        prepares="order",
    )
    alpha: float = shared(
        0.5,
        "share of singular values that top directions have together",
        low=0.0,
        high=1.0,
        prepares=True,
    )
    norm: str = choice(
        ("tensor", "none"), "scale to the mean length of task vectors", prepares=True
    )

    def prepared_value(self, name: str) -> Scalar | PerExpert:
        """See ``PreparedMethod.prepared_value``: of positions only their order counts."""
        if name != "position":
            return super().prepared_value(name)
        places = {expert: place for place, expert in enumerate(self._order())}
        last = max(1, len(places) - 1)
        return tuple(places[expert] / last for expert in range(len(places)))

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        import torch

        total = torch.zeros(tensor.shape)
        parts: dict[int, torch.Tensor] = {}
        for expert in self._order():
            parts[expert] = _projected(tensor.read[expert](), total, self.alpha)
            total += parts[expert]
        return self._scaled([parts[i] for i in range(tensor.n)], tensor)

    def otherwise(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.otherwise``."""
        return self._scaled(tensor.all(), tensor)

    def _order(self) -> list[int]:
        return sorted(range(len(self.position)), key=lambda expert: self.position[expert])

    def _scaled(self, parts: list[torch.Tensor], tensor: TaskVectors) -> list[torch.Tensor]:
        length = float(sum(parts[1:], parts[0]).norm())
        if self.norm == "none" or length == 0:
            return parts
        mean = sum(float(read().norm()) for read in tensor.read) / tensor.n
        return [part * (mean / length) for part in parts]


def _projected(tau: torch.Tensor, before: torch.Tensor, alpha: float) -> torch.Tensor:
    """Take out of a task matrix what lies where the merge before it is."""
    from evomerge.methods.algebra import decomposed

    left, values, right = decomposed(before)
    if not len(values):
        return tau
    top = int((values.cumsum(0) <= alpha * values.sum()).sum())
    inside = left.T @ tau @ right.T
    taken = inside.diagonal().diag_embed()
    taken[:top, :top] = inside[:top, :top]
    return tau - left @ taken @ right
