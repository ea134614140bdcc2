"""Parameters that several methods share, declared once."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast

from evomerge.kernels.plan import Elect
from evomerge.methods.declared import PerExpert, choice, per_expert, shared

__all__ = [
    "coefficient",
    "density",
    "divisor",
    "election",
    "epsilon",
    "gamma",
    "lambda_scale",
    "normalize",
    "rescale",
    "scaled",
    "scope",
    "shares",
    "trim_rescale",
    "vote",
    "zero_sign",
]

Vote: TypeAlias = Literal["weighted", "unweighted", "count"]

_CANCELLED = 1e-8  # a sum of coefficients below this is treated as cancelled


def coefficient(doc: str = "what each expert is multiplied by") -> Any:
    """Declare ``coefficient``: what each expert's task vector (or tensor) is multiplied by."""
    return per_expert(1.0, doc, low=-10.0, high=10.0, search=(0.0, 1.0), slope=True)


def density(default: float = 0.5) -> Any:
    """Declare ``density``: the share of each task vector that is kept."""
    return per_expert(
        default, "share of each task vector that is kept", low=0.0, high=1.0, search=(0.1, 1.0)
    )


def gamma() -> Any:
    """Declare ``gamma``: the share of largest changes that is dropped."""
    return per_expert(
        0.01,
        "share of largest changes that is dropped (at most 1 - density)",
        low=0.0,
        high=1.0,
        search=(0.0, 0.1),
    )


def epsilon() -> Any:
    """Declare ``epsilon``: how far keep probabilities reach around the density."""
    return per_expert(
        0.15,
        "keep probabilities are density - epsilon to density + epsilon (at most all of 0 to 1)",
        low=0.0,
        high=0.5,
        search=(0.0, 0.3),
    )


def lambda_scale() -> Any:
    """Declare ``lambda``: scale of the merged task vector."""
    doc = "scale of the merged task vector"
    return shared(1.0, doc, low=-10.0, high=10.0, search=(0.3, 1.5), slope=True)


def normalize(default: bool, over: str) -> Any:
    """Declare ``normalize``: divide by the sum of coefficients."""
    return shared(default, f"divide by the sum of {over}")


def rescale(*, norms: str = "to the whole task vector's L1 or L2 norm") -> Any:
    """Declare ``rescale``: what makes up for elements dropped at random."""
    return choice(
        ("inv_p", "l1", "l2", "none"), f"kept elements: divide by their probability, or {norms}"
    )


def trim_rescale() -> Any:
    """Declare ``rescale``: what makes up for elements that are trimmed."""
    return choice(
        ("none", "l1", "l2"), "kept elements: leave them, or scale to the whole's L1 or L2 norm"
    )


def scope(*choices: str) -> Any:
    """Declare ``scope``: over what the kept share is counted; the first choice is the default."""
    return choice(choices or ("tensor", "global"), "the share is of each tensor, row, or model")


def vote() -> Any:
    """Declare ``vote``: what elects the sign of an element."""
    return choice(
        ("weighted", "unweighted", "count"),
        "elect by sum with coefficients, by sum without, or by head count",
    )


def zero_sign(*choices: str) -> Any:
    """Declare ``zero_sign``: what a vote of exactly zero elects."""
    return choice(
        choices or ("positive", "negative", "none"), "sign that a vote of exactly zero elects"
    )


def election(vote: str, zero_sign: str) -> Elect:
    """Turn the two choices into what plans hold."""
    signs: dict[str, Literal[-1, 0, 1]] = {"positive": 1, "negative": -1, "none": 0}
    return Elect(vote=cast(Vote, vote), zero=signs[zero_sign])


def divisor(coefficients: PerExpert, *, normalize: bool) -> float:
    """Return what a sum is divided by: its coefficients' sum, if wanted; 1 where they cancel."""
    total = sum(coefficients)
    return total if normalize and abs(total) >= _CANCELLED else 1.0


def shares(coefficients: PerExpert) -> PerExpert:
    """Divide coefficients by their sum; equal shares where they cancel."""
    total = sum(coefficients)
    if abs(total) < _CANCELLED:
        return (1.0 / len(coefficients),) * len(coefficients)
    return tuple(c / total for c in coefficients)


def scaled(coefficients: PerExpert, factors: PerExpert) -> PerExpert:
    """Multiply coefficients by one factor per expert."""
    return tuple(c * f for c, f in zip(coefficients, factors, strict=True))
