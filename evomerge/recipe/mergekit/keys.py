"""mergekit's names of methods and parameters, and which parameters it reads where."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches

from evomerge.methods.registry import method

__all__ = [
    "METHODS",
    "OURS_ALONE",
    "PASSTHROUGH",
    "RESCALES",
    "known_parameters",
    "mergekit_name",
    "unknown_parameters",
]

PASSTHROUGH = "passthrough"  # no method here: a path
METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp")
# What ``rescale`` must be, as these methods here know one way only.
RESCALES = {"ties": False, "dare_linear": True, "dare_ties": True}
# Parameters that mergekit does not have, and the values of each that are what it does.
OURS_ALONE = {
    "scope": ("tensor",),
    "vote": ("weighted",),
    "zero_sign": ("positive",),
    "rescale": ("inv_p", "l1"),
}
_NAMES = {"coefficient": "weight"}  # ours: theirs, where they differ
_WITHOUT_EFFECT = {"task_arithmetic": ("density", "rescale")}  # besides int8_mask, everywhere


def mergekit_name(parameter: str) -> str:
    """Translate one of our parameter names."""
    return _NAMES.get(parameter, parameter)


def known_parameters(merge_method: str, *, of_one_model: bool) -> set[str]:
    """List the parameters that mergekit reads.

    Args:
        merge_method: One of ``METHODS``, or ``PASSTHROUGH``.
        of_one_model: Among the parameters of one model, where it reads no shared ones.
    """
    if merge_method == PASSTHROUGH:
        return {"scale", "int8_mask"}
    declared = [p for n, p in method(merge_method).parameters().items() if n not in OURS_ALONE]
    known = {mergekit_name(p.name) for p in declared if p.per_expert or not of_one_model}
    if merge_method in RESCALES and not of_one_model:
        known.add("rescale")
    return known | {"int8_mask", *_WITHOUT_EFFECT.get(merge_method, ())}


def unknown_parameters(given: Collection[str], known: Collection[str]) -> Iterator[str]:
    """Say of each given parameter that is not known which one may be meant."""
    for key in given:
        if key not in known:
            near = get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
            )
            yield f"{key}: unknown key; {hint}"
