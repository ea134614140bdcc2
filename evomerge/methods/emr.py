"""EMR: elect a sign, take the largest change that has it (the unified model of EMR-Merging)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import Agree, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, lambda_scale, zero_sign

__all__ = ["Emr"]


@dataclass(frozen=True, kw_only=True)
class Emr(Method):
    """Elect the sign of the sum, keep the largest change that has it.

    This is the unified task vector. The paper's masks and rescalers per task make a model per
    expert of it (``masked``).
    """

    name: ClassVar[str] = "emr"
    summary: ClassVar[str] = "largest change among those of the elected sign"
    formula: ClassVar[str] = "θ = θ₀ + λ γ maxᵢ{|cᵢτᵢ| : sign(cᵢτᵢ) = γ},  γ = sign(Σ cᵢτᵢ)"
    source: ClassVar[str] = "Huang et al. 2024, EMR-Merging, arXiv:2405.17461"
    covers: ClassVar[tuple[str, ...]] = ("EMR-Merging (unified model)",)

    coefficient: PerExpert = coefficient()
    lambda_: float = lambda_scale()
    zero_sign: str = zero_sign("negative", "positive")

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(
            coefficients=self.coefficient,
            combine=Agree(zero=1 if self.zero_sign == "positive" else -1),
            scale=self.lambda_,
        )
