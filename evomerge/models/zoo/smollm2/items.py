"""One question and its answer, and the splits that everything in items is dealt to."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from evomerge.seeds import seed_for

__all__ = ["SPLITS", "Exercise", "dealt"]

_Item = TypeVar("_Item")

SPLITS = ("train", "search", "validation", "test")
_CUTS = (0.0, 0.55, 0.7, 0.85, 1.0)  # where the shares of the splits begin and end


@dataclass(frozen=True)
class Exercise:
    """One question; the answer follows the prompt after a space.

    Attributes:
        prompt: What the model reads.
        answer: What it is trained to say.
    """

    prompt: str
    answer: str


def dealt(parts: Sequence[_Item], label: str, split: str) -> list[_Item]:
    """Return the parts of one split: a shuffle that depends on nothing but the label, cut.

    Args:
        parts: All of them, each once.
        label: What they are; another label shuffles otherwise.
        split: One of ``SPLITS``.
    """
    shuffled = list(parts)
    random.Random(seed_for(0, "smollm2", label)).shuffle(shuffled)
    start, end = _CUTS[SPLITS.index(split) :][:2]
    return shuffled[round(start * len(parts)) : round(end * len(parts))]
