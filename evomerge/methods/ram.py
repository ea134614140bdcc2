"""RAM: keep what only one expert changed, average what several changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.kernels.plan import Band, TensorPlan, UniqueShared
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale
from evomerge.statistics.name import StatisticName

__all__ = ["Ram", "RamPlus"]

_SOURCE = (
    "Reinforced Agent Merging: Behavior Knowledge Merge in Reinforced Agentic Models, 2026, "
    "arXiv:2601.13572"
)
_MANY = 16  # co-activation counts of n experts are 2**n numbers


def _tolerance() -> float:
    found: float = shared(
        1e-5, "changes up to this size count as none", low=0.0, high=1e6, search=(1e-6, 1e-3)
    )
    return found


@dataclass(frozen=True, kw_only=True)
class Ram(Method):
    """Average over the experts that changed an element, so that lone changes are not diluted."""

    name: ClassVar[str] = "ram"
    summary: ClassVar[str] = "average each parameter over the experts that changed it"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ aᵢ τᵢ / max(Σ aᵢ, 1),  aᵢ = [|τᵢ| > tolerance]"
    source: ClassVar[str] = _SOURCE

    coefficient: PerExpert = coefficient()
    tolerance: float = _tolerance()
    lambda_: float = lambda_scale()

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        n = len(tensor.experts)
        return TensorPlan(
            coefficients=self.coefficient,
            sparse=(_active(self.tolerance),) * n,
            combine=UniqueShared(unique=(1.0,) * n),
            scale=self.lambda_,
        )


@dataclass(frozen=True, kw_only=True)
class RamPlus(Method):
    """Do as ``ram`` does, and amplify the lone changes of experts that share many of theirs."""

    name: ClassVar[str] = "ramplus"
    summary: ClassVar[str] = "as ram, lone changes amplified"
    formula: ClassVar[str] = (
        "as ram, with lone changes times 1 + boost·min(sharedᵢ/uniqueᵢ, boost_cap) (counts)"
    )
    source: ClassVar[str] = _SOURCE
    covers: ClassVar[tuple[str, ...]] = ("RAM+", "ramplus_tl")
    statistics: ClassVar[tuple[str, ...]] = ("activity",)
    n_experts: ClassVar[tuple[int, int | None]] = (1, _MANY)

    coefficient: PerExpert = coefficient()
    tolerance: float = _tolerance()
    boost: float = shared(
        0.1,
        "how much lone changes are amplified",
        low=0.0,
        high=100.0,
        search=(0.0, 1.0),
        slope=True,
    )
    boost_cap: float = shared(
        0.2,
        "largest ratio of shared to lone changes that counts",
        low=0.0,
        high=1e6,
        search=(0.0, 2.0),
        slope=True,
    )
    lambda_: float = lambda_scale()

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``."""
        return (str(StatisticName("activity", (self.tolerance,))),)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        n = len(tensor.experts)
        ratios = _shared_to_unique(tensor.statistics.activity(self.tolerance), n)
        return TensorPlan(
            coefficients=self.coefficient,
            sparse=(_active(self.tolerance),) * n,
            combine=UniqueShared(
                unique=tuple(1.0 + self.boost * min(ratio, self.boost_cap) for ratio in ratios)
            ),
            scale=self.lambda_,
        )


def _active(tolerance: float) -> Band:
    above = np.nextafter(np.float32(tolerance), np.float32(np.inf))
    # Subnormal bounds would be zero on devices that flush them.
    return Band(low=max(float(above), float(np.finfo(np.float32).tiny)))


def _shared_to_unique(counts: NDArray[np.int64], n_experts: int) -> Iterator[float]:
    """Per expert, how many elements it changed with others, over how many alone."""
    patterns = np.arange(counts.size)
    for expert in range(n_experts):
        unique = int(counts[1 << expert])
        active = int(counts[(patterns >> expert) & 1 == 1].sum())
        yield (active - unique) / unique if unique else 0.0
