"""Gates: a broken candidate is recognised in its first moments, and not scored in full.

Broken means: logits that are no numbers, a perplexity on the tasks' own prompts far above that of
the worst parent, or greedy answers that run away in a loop where no parent's do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

__all__ = ["Gates", "Health", "worst"]


@dataclass(frozen=True)
class Gates:
    """When a candidate is given up before it is scored.

    Attributes:
        perplexity_factor: Its perplexity on the prompts exceeds the worst parent's this many times.
        runaway: This share of its greedy answers runs away beyond the worst parent's share.
        answer_tokens: How long an answer may get before it is called runaway; tasks whose answers
            are shorter anyway cost too little to be tried.
    """

    perplexity_factor: Annotated[float, Field(gt=1)] = 10.0
    runaway: Annotated[float, Field(gt=0, le=1)] = 0.75
    answer_tokens: Annotated[int, Field(ge=16, le=100_000)] = 48

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def summary(self) -> str:
        """What ends a candidate before it is scored, in one line."""
        return (
            "a candidate ends before it is scored if its logits are not finite, if its perplexity "
            f"on the prompts exceeds {self.perplexity_factor:g} times the worst parent's, or if "
            f"{self.runaway:.0%} more of its greedy answers than of the worst parent's repeat "
            f"themselves for {self.answer_tokens} tokens"
        )

    def reason(self, candidate: Health, parents: Health) -> str | None:
        """Say why a candidate is given up; ``None`` lets it pass.

        Args:
            candidate: Its health.
            parents: The worst of the parents'.
        """
        if not math.isfinite(candidate.nats_per_token):
            return "its logits are not finite"
        if candidate.nats_per_token > parents.nats_per_token + math.log(self.perplexity_factor):
            return (
                f"its perplexity on the prompts is {_perplexity(candidate)}, the worst parent's "
                f"{_perplexity(parents)} (gates.perplexity_factor: {self.perplexity_factor:g})"
            )
        if candidate.runaway >= parents.runaway + self.runaway:
            return (
                f"{candidate.runaway:.0%} of its greedy answers repeat themselves without end, the "
                f"worst parent's {parents.runaway:.0%} (gates.runaway: {self.runaway:g})"
            )
        return None


@dataclass(frozen=True)
class Health:
    """What a probe finds.

    Attributes:
        nats_per_token: Logarithm of the perplexity on the prompts; NaN or infinite if the logits
            are.
        runaway: Share of greedy answers that repeat themselves without end.
    """

    nats_per_token: float
    runaway: float


def worst(healths: Sequence[Health]) -> Health:
    """Combine the worst of several models; those whose logits are not finite do not count."""
    finite = [h.nats_per_token for h in healths if math.isfinite(h.nats_per_token)]
    return Health(max(finite, default=math.inf), max(h.runaway for h in healths))


def _perplexity(health: Health) -> str:
    nats = health.nats_per_token
    return f"{math.exp(nats):.4g}" if nats < 700 else f"e^{nats:.0f}"
