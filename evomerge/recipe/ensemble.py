"""Models that answer together instead of being merged, in a recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from evomerge.errors import Fault

__all__ = ["OutputMix"]


@dataclass(frozen=True)
class OutputMix:
    """How what several models predict becomes one prediction.

    Attributes:
        by: Of what the weighted mean is taken, ``probabilities`` or ``logits``.
        weights: By model, ``base`` or an expert; their sum is made 1. Those absent or 0 do not run.
            Of probabilities none is below 0; of logits some may be, as in proxy tuning.
    """

    by: Literal["probabilities", "logits"]
    weights: Mapping[str, float]

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def shares(self) -> dict[str, float]:
        """What the predictions of each model that runs are multiplied by; they add up to 1."""
        total = sum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items() if weight}

    def faults(self, models: Collection[str]) -> Iterator[Fault]:
        """Find what is wrong.

        Args:
            models: Names of all that may take part.
        """
        for name in self.weights.keys() - {*models}:
            yield Fault(("weights", name), f"expected one of {', '.join(models)}, got {name!r}")
        weights = list(self.weights.values())
        if not 0 < sum(weights) < float("inf"):
            text = f"expected finite weights with a sum above 0, got {sum(weights):g}"
            yield Fault(("weights",), text)
        if self.by == "probabilities" and min(weights, default=0) < 0:
            text = f"expected weights of at least 0 for probabilities, got {min(weights):g}"
            yield Fault(("weights",), text, "by: logits may have others")
