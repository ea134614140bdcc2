"""Parameters that several methods share, declared once."""

from __future__ import annotations

from typing import Any

from evomerge.methods.base import per_expert, shared

__all__ = ["coefficient", "density", "lambda_scale", "normalize", "safe_sum"]

_CANCELLED = 1e-8  # a sum of coefficients below this is treated as cancelled


def coefficient(default: float = 1.0) -> Any:
    """Declare ``coefficient``: what each expert's task vector (or tensor) is multiplied by."""
    return per_expert(default, "factor of the expert", low=-10.0, high=10.0, search=(0.0, 1.0))


def density() -> Any:
    """Declare ``density``: the share of each task vector that is kept."""
    return per_expert(
        0.5, "share of the task vector that is kept", low=0.0, high=1.0, search=(0.1, 1.0)
    )


def lambda_scale() -> Any:
    """Declare ``lambda``: scale of the merged task vector."""
    return shared(1.0, "scale of the merged task vector", low=-10.0, high=10.0, search=(0.3, 1.5))


def normalize(default: bool, over: str) -> Any:
    """Declare ``normalize``: divide by the sum of coefficients."""
    return shared(default, f"divide by the sum of {over}")


def safe_sum(coefficients: tuple[float, ...]) -> float:
    """Sum coefficients as a divisor: 1 where they cancel."""
    total = sum(coefficients)
    return total if abs(total) >= _CANCELLED else 1.0
