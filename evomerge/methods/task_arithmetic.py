"""Task arithmetic: add scaled task vectors to the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, divisor, lambda_scale, normalize

__all__ = ["TaskArithmetic"]


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic(Method):
    """Sum the task vectors; a negative coefficient removes a skill.

    Many published methods are this operation and differ in what they put in: experts that are the
    difference of two models (chat vector, fine-tuning transfer; ExPO has the aligned model as base
    and its change since supervised fine-tuning as expert), or experts trained in a special way
    (tangent space). Methods that are a rule to find the coefficients are not among them.
    """

    name: ClassVar[str] = "task_arithmetic"
    summary: ClassVar[str] = "base plus a weighted sum of task vectors"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ τᵢ"
    source: ClassVar[str] = (
        "Ilharco et al. 2023, Editing Models with Task Arithmetic, arXiv:2212.04089"
    )
    covers: ClassVar[tuple[str, ...]] = (
        "task negation (unlearning)",
        "task analogy",
        "Chat Vector",
        "instruction vector with continued pre-training vector",
        "Fine-tuning Transfer",
        "ExPO",
        "task arithmetic in the tangent space",
    )

    coefficient: PerExpert = coefficient()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "all coefficients")

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(
            coefficients=self.coefficient,
            scale=self.lambda_ / divisor(self.coefficient, normalize=self.normalize),
        )
