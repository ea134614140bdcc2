"""What a candidate costs beside what it scores: the names that objectives and constraints use.

To add a cost, name it here and measure it in ``meter.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evomerge.errors import did_you_mean

__all__ = ["COST", "COSTS", "OF_ANSWERS", "SHARES", "Cost", "cost_fault", "why_no_slope"]

COST = "cost"  # the task that costs are metrics of

COSTS = {
    "parameters": "parameters of the merged model as it would be exported, of an ensemble of all",
    "hops": "decoder layers run per token",
    "forwards": "models run per token: 1 of a merge, more of an ensemble",
    "output_tokens": "mean tokens per generated answer, its reasoning included",
    "truncated": "share (0 to 1) of generated answers cut off, or whose reasoning never ends",
    "seconds_per_item": "seconds of evaluation per item; they differ from run to run",
    "distance": "L2 distance from a reference model, as a share of that model's norm",
    "kl": "mean KL(reference || candidate) per token, in nats, on a sample of the prompts",
}
SHARES = ("truncated",)  # between 0 and 1
OF_ANSWERS = ("output_tokens", "truncated")  # they need a task that generates text
_WITH_REFERENCE = ("distance", "kl")  # they have slopes, too


@dataclass(frozen=True)
class Cost:
    """One cost metric.

    Attributes:
        name: A key of ``COSTS``.
        reference: ``base`` or an expert's name; only ``distance`` and ``kl`` look at it.
    """

    name: str
    reference: str = "base"

    @classmethod
    def of(cls, metric: str) -> Cost:
        """Read a metric name of the task ``cost``: ``NAME`` or ``NAME:REFERENCE``."""
        name, _, reference = metric.partition(":")
        return cls(name, reference or "base")

    @property
    def is_timed(self) -> bool:
        """Whether it differs from run to run."""
        return self.name == "seconds_per_item"


def cost_fault(metric: str, experts: Collection[str]) -> str | None:
    """Say what is wrong with a cost metric, in one line; ``None`` if all is well.

    Args:
        metric: ``NAME`` or ``NAME:REFERENCE``.
        experts: Names of the experts.
    """
    name, separator, reference = metric.partition(":")
    if name not in COSTS:
        return _expected("a cost", name, COSTS)
    if separator and name not in _WITH_REFERENCE:
        return f"only {' and '.join(_WITH_REFERENCE)} have a reference, got one for {name}"
    if separator and reference not in ("base", *experts):
        return _expected("a reference", reference, ("base", *experts))
    return None


def why_no_slope(metric: str, direction: str) -> str | None:
    """Say why a cost has no slope, in one line; ``None`` if it has.

    Args:
        metric: ``NAME`` or ``NAME:REFERENCE``.
        direction: Which way the study wants it, ``maximize`` or ``minimize``.
    """
    if Cost.of(metric).name not in _WITH_REFERENCE:
        return f"of the costs only {' and '.join(_WITH_REFERENCE)} have one"
    return None if direction == "minimize" else "climbs make costs smaller"


def _expected(what: str, got: str, known: Collection[str]) -> str:
    return f"expected {what} out of {', '.join(known)}, got {got!r}{did_you_mean(got, known)}"
