"""SLERP: move along the great circle between two models, tensor by tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, TensorContext, shared

__all__ = ["Slerp", "slerp_coefficients"]

_COLINEAR = 0.9995  # beyond this cosine the arc is straight and sin(Ω) loses its digits


@dataclass(frozen=True, kw_only=True)
class Slerp(Method):
    """Interpolate two models: the base and one expert, or two experts (then the base is unread)."""

    name: ClassVar[str] = "slerp"
    summary: ClassVar[str] = "spherical interpolation between two models"
    formula: ClassVar[str] = (
        "θ = sin((1−t)Ω)/sin Ω · θₐ + sin(tΩ)/sin Ω · θ_b,  cos Ω = cos(θₐ, θ_b)"
    )
    source: ClassVar[str] = "Shoemake 1985, Animating Rotation with Quaternion Curves"
    statistics: ClassVar[tuple[str, ...]] = ("model_gram",)
    covers: ClassVar[tuple[str, ...]] = ("domain adaptation by SLERP (Buehler)",)
    needs_base: ClassVar[bool] = False
    n_experts: ClassVar[tuple[int, int | None]] = (1, 2)

    t: float = shared(
        0.5, "0 is the first model, 1 the second", low=0.0, high=1.0, search=(0.0, 1.0), slope=True
    )

    @classmethod
    def requires_base(cls, n_experts: int) -> bool:
        """See ``Method.requires_base``: one expert needs the base as the other end."""
        return n_experts == 1

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        gram = tensor.statistics.model_gram[-2:, -2:]  # the two experts, or the base and one expert
        norms = math.sqrt(gram[0, 0] * gram[1, 1])
        first, second = slerp_coefficients(self.t, gram[0, 1] / norms if norms > 0 else 1.0)
        if len(tensor.experts) == 2:
            return TensorPlan(coefficients=(first, second), delta=False, base_coefficient=0.0)
        return TensorPlan(coefficients=(second,), delta=False, base_coefficient=first)


def slerp_coefficients(t: float, cosine: float) -> tuple[float, float]:
    """Compute the two factors of spherical interpolation.

    Args:
        t: Position, 0 to 1.
        cosine: Cosine between the flattened tensors; (nearly) colinear ones interpolate linearly.

    Returns:
        Factors of the first and the second tensor, applied to them unnormalised.
    """
    if abs(cosine) > _COLINEAR:
        return 1.0 - t, t
    omega = math.acos(cosine)
    return math.sin((1.0 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega)
