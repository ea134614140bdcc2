"""How a mask is learned, and how the merge that it is learned for is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import Fault

__all__ = ["MaskSettings"]


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """How a mask is learned; defaults are those of the authors' code.

    Attributes:
        steps: Of Adam.
        rate: Its learning rate.
        items: Items per objective and step, drawn anew.
        coefficient: What every masked task vector is multiplied by; with an inner rate, where the
            coefficients start in each step.
        inner_rate: Learning rate of one step of the coefficients, one per tensor and expert, that
            each step of the mask begins with; 0: they stay as they are.
        temperature: Of the relaxation: the lower, the closer masks come to 0 and 1.
        loss: What is made smaller: ``entropy`` looks at how sure the merge is, ``gold`` at what is
            right.
        final: The mask in the end: ``continuous``, drawn once more as while learning; ``discrete``,
            drawn as 0 or 1.
        seed: Of everything that is drawn.
    """

    steps: int = 2000
    rate: float = 1e-3
    items: int = 16
    coefficient: float = 0.3
    inner_rate: float = 0.0
    temperature: float = 0.5
    loss: Literal["entropy", "gold"] = "entropy"
    final: Literal["continuous", "discrete"] = "continuous"
    seed: int = 0

    def faults(self) -> Iterator[Fault]:
        """Find what is wrong with the numbers."""
        for name in ("steps", "items"):
            if getattr(self, name) < 1:
                yield Fault((name,), f"expected at least 1, got {getattr(self, name)}")
        for name in ("rate", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                yield Fault((name,), f"expected a number above 0, got {getattr(self, name)}")
        if not 0 <= self.inner_rate < math.inf:
            text = f"expected a number of at least 0, got {self.inner_rate}"
            yield Fault(("inner_rate",), text)
        if not math.isfinite(self.coefficient):
            yield Fault(("coefficient",), f"expected a finite number, got {self.coefficient}")
