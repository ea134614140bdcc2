"""Named random seeds: every draw in a study is a function of the study's seed and its labels."""

from __future__ import annotations

import hashlib

__all__ = ["seed_for"]


def seed_for(study_seed: int, *labels: str | int) -> int:
    """Derive the seed of one named draw.

    Args:
        study_seed: The experiment's ``seed``.
        labels: What the draw is for, from general to particular, e.g. ``("dare", "math", tensor)``.

    Returns:
        An integer in [0, 2**63), the same on every machine; unrelated for different labels.
    """
    text = "\x1f".join([str(study_seed), *map(str, labels)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
