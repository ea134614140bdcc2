"""TATR without data: task arithmetic where the experts do not get into each other's way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import Conflict, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale, scope

__all__ = ["Tatr"]


@dataclass(frozen=True, kw_only=True)
class Tatr(Method):
    """Sum the task vectors inside the trust region: where few experts change much at once.

    The paper measures sensitivity by gradients; without data the change itself stands in for them.
    Its share is of the whole model (``scope: global``); by default it is of each tensor.
    """

    name: ClassVar[str] = "tatr"
    summary: ClassVar[str] = "task arithmetic where experts conflict least"
    formula: ClassVar[str] = "θ = θ₀ + λ [Ω ≤ t(trust)] Σ cᵢ τᵢ,  Ω = Σ_{i≠j} |τᵢ||τⱼ|"
    source: ClassVar[str] = "Sun et al. 2025, Task Arithmetic in Trust Region, arXiv:2501.15065"
    statistics: ClassVar[tuple[str, ...]] = ("conflict", "model_conflict")

    coefficient: PerExpert = coefficient()
    trust: float = shared(
        0.99,
        "share of parameters, of least conflict, to change",
        low=0.0,
        high=1.0,
        search=(0.5, 1.0),
    )
    lambda_: float = lambda_scale()
    scope: str = scope("tensor", "global")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: those of the scope."""
        return ("model_conflict",) if self.scope == "global" else ("conflict",)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(
            coefficients=self.coefficient, gate=self._gate(tensor), scale=self.lambda_
        )

    def _gate(self, tensor: TensorContext) -> Conflict | None:
        if self.trust >= 1.0:
            return None
        statistics = tensor.statistics
        found = statistics.model_conflict if self.scope == "global" else statistics.conflict
        return Conflict(at_most=found.upper_edge(int((1.0 - self.trust) * found.n)))
