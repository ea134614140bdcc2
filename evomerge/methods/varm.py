"""VaRM: average task vectors in proportion to their energy, matrix by matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, lambda_scale
from evomerge.methods.sce import energy_shares

__all__ = ["Varm"]


@dataclass(frozen=True, kw_only=True)
class Varm(Method):
    """Mix by how much each expert changed this tensor (its variation ratio)."""

    name: ClassVar[str] = "varm"
    summary: ClassVar[str] = "average by energy of the task vectors"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ wᵢ τᵢ,  wᵢ = cᵢ ‖τᵢ‖² / Σⱼ cⱼ ‖τⱼ‖²"
    source: ClassVar[str] = (
        "Wan et al. 2024, FuseChat: Knowledge Fusion of Chat Models, arXiv:2402.16107"
    )
    statistics: ClassVar[tuple[str, ...]] = ("task_gram",)

    coefficient: PerExpert = coefficient("what each expert's energy is multiplied by")
    lambda_: float = lambda_scale()

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        energies = tensor.statistics.task_gram.diagonal()
        return TensorPlan(
            coefficients=energy_shares(self.coefficient, energies), scale=self.lambda_
        )
