"""PCB: parameters compete by their magnitude and by their agreement with the other experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import ScoreMean, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale, scope
from evomerge.statistics.name import StatisticName

__all__ = ["Pcb"]


@dataclass(frozen=True, kw_only=True)
class Pcb(Method):
    """Average the task vectors, each element weighed by a score; low scores count nothing.

    What is averaged is clipped as what is scored is: the few largest changes, the largest one at
    least, are cut to the next, and the few smallest raised. Scores depend on no coefficient. The
    between-expert part is that of the authors' language code, tanh of the product with the sum.
    Clips and cuts are of each tensor; theirs are of the model (``scope: global``).
    """

    name: ClassVar[str] = "pcb"
    summary: ClassVar[str] = "average weighed by competition between parameters"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ sᵢ clip(τᵢ) / Σ sᵢ,  sᵢ from exp(n·uᵢ²)·tanh(τᵢ Σⱼ τⱼ), top share only, "
        "uᵢ = clipped |τᵢ| on [0, 1]"
    )
    source: ClassVar[str] = (
        "Du et al. 2024, Parameter Competition Balancing for Model Merging, arXiv:2410.02396"
    )
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "scores", "model_scores")

    coefficient: PerExpert = coefficient()
    score_ratio: float = shared(
        0.1, "share of elements whose score counts", low=0.0, high=1.0, search=(0.05, 0.5)
    )
    clip: float = shared(1e-4, "share of magnitudes clipped at either end", low=0.0, high=0.49)
    lambda_: float = lambda_scale()
    scope: str = scope("tensor", "global")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: those of the scope."""
        scores = "model_scores" if self.scope == "global" else "scores"
        return ("magnitudes", str(StatisticName(scores, (self.clip,))))

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        statistics = tensor.statistics
        of_scope = statistics.model_scores if self.scope == "global" else statistics.scores
        scores = of_scope(self.clip)
        return TensorPlan(
            coefficients=self.coefficient,
            combine=ScoreMean(
                low=scores.low,
                high=scores.high,
                cut=scores.cut(self.score_ratio),
                top=scores.top,
            ),
            scale=self.lambda_,
        )
