"""Which experts of a mixture become one: the most used ones, each with those that are like it.

Source: Li et al. 2023, arXiv:2310.01334, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["ExpertGroup", "expert_groups"]


@dataclass(frozen=True)
class ExpertGroup:
    """Experts of one layer that become one.

    Attributes:
        dominant: The most used of them.
        shares: How much each of them counts, by its number, in ascending order; they add up to 1.
    """

    dominant: int
    shares: dict[int, float]


def expert_groups(usage: torch.Tensor, likeness: torch.Tensor, n: int) -> tuple[ExpertGroup, ...]:
    """Group the experts of one layer.

    The most used ones are dominant; each other one joins the dominant one that it is most like.
    Experts count as often as they are used; where no token meets a group, its dominant alone.

    Args:
        usage: (experts,): how many tokens each is sent.
        likeness: (experts, experts).
        n: How many groups, from 1 to all.

    Returns:
        The groups, in the order of their dominant experts. Of equals, those with lower numbers are
        more used.
    """
    by_usage = usage.argsort(descending=True, stable=True)
    dominant = by_usage[:n]
    nearest = dominant[likeness[:, dominant].argmax(1)]
    nearest[dominant] = dominant
    return tuple(_group(int(one), nearest, usage) for one in dominant.sort().values)


def _group(dominant: int, nearest: torch.Tensor, usage: torch.Tensor) -> ExpertGroup:
    members = (nearest == dominant).nonzero().flatten().tolist()
    counts = {i: float(usage[i]) for i in members}
    if not (total := sum(counts.values())):
        return ExpertGroup(dominant, {i: float(i == dominant) for i in members})
    return ExpertGroup(dominant, {i: count / total for i, count in counts.items()})
