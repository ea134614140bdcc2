"""WiSE-FT: walk the straight line from the base to one fine-tuned model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, TensorContext, shared

__all__ = ["WiseFt"]


@dataclass(frozen=True, kw_only=True)
class WiseFt(Method):
    """Interpolate between the base and one expert, or go beyond either."""

    name: ClassVar[str] = "wise_ft"
    summary: ClassVar[str] = "linear interpolation between the base and one expert"
    formula: ClassVar[str] = "θ = (1−α) θ₀ + α θ₁"
    source: ClassVar[str] = (
        "Wortsman et al. 2022, Robust fine-tuning of zero-shot models, arXiv:2109.01903"
    )
    covers: ClassVar[tuple[str, ...]] = ("BANG (its merge)",)
    n_experts: ClassVar[tuple[int, int | None]] = (1, 1)

    alpha: float = shared(
        0.5, "0 is the base, 1 the expert", low=-10.0, high=10.0, search=(0.0, 1.2), slope=True
    )

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(coefficients=(self.alpha,))
