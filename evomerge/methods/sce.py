"""SCE: select by variance, calculate coefficients by energy, erase minority signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.arrays import FloatArray
from evomerge.kernels.plan import Elect, TensorPlan, Variance
from evomerge.methods.base import Method, PerExpert, TensorContext, choice, shared
from evomerge.methods.parameters import coefficient, lambda_scale, scaled, scope, shares

__all__ = ["Sce", "energy_shares"]


@dataclass(frozen=True, kw_only=True)
class Sce(Method):
    """Mix by the energy of what differs between experts, without the minority's signs.

    Where changes cancel exactly the positive side is kept, as in the authors' code and in mergekit.
    The share is of the elements in which the experts differ at all, of each tensor or of the model
    (``scope: global``); energies are always each tensor's own. In ``masked`` mode only
    selected elements are merged, as in the paper and in mergekit; in ``weights_only`` mode the
    selection serves to find the coefficients and all elements are merged, as in the authors'
    code.
    """

    name: ClassVar[str] = "sce"
    summary: ClassVar[str] = "select by variance, weigh by energy, erase minority signs"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ wᵢ mᵢ τᵢ / Σ wᵢ mᵢ,  wᵢ ∝ cᵢ Σ_selected τᵢ²,  mᵢ = [sign τᵢ = sign Σⱼ τⱼ]"
    )
    source: ClassVar[str] = "Wan et al. 2024, FuseChat, arXiv:2408.07990"
    statistics: ClassVar[tuple[str, ...]] = ("variance", "task_gram", "model_variance")

    coefficient: PerExpert = coefficient("what each expert's energy is multiplied by")
    select_topk: float = shared(
        1.0, "share of elements selected by their variance", low=0.0, high=1.0, search=(0.1, 1.0)
    )
    lambda_: float = lambda_scale()
    sce_mode: str = choice(
        ("masked", "weights_only"), "merge selected elements only, or all by their coefficients"
    )
    scope: str = scope("tensor", "global")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: without selection the energies suffice."""
        if self.select_topk >= 1.0:
            return ("task_gram",)
        return self.statistics if self.scope == "global" else ("variance", "task_gram")

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        gate = self._gate(tensor)
        statistics = tensor.statistics
        energies = (
            statistics.task_gram.diagonal()
            if gate is None
            else statistics.variance.energies(gate.at_least)
        )
        return TensorPlan(
            coefficients=energy_shares(self.coefficient, energies),
            gate=gate if self.sce_mode == "masked" else None,
            combine=Elect(vote="unweighted", zero=1),
            normalize_by_mask=True,
            scale=self.lambda_,
        )

    def _gate(self, tensor: TensorContext) -> Variance | None:
        if self.select_topk >= 1.0 or len(tensor.experts) == 1:  # one expert differs from none
            return None
        statistics = tensor.statistics
        found = statistics.model_variance if self.scope == "global" else statistics.variance
        return Variance(found.threshold(self.select_topk))


def energy_shares(coefficients: PerExpert, energies: FloatArray) -> PerExpert:
    """Share out 1 by energy times coefficient; equally where no expert has any energy."""
    return shares(scaled(coefficients, shares(tuple(float(e) for e in energies))))
