"""Shares, such as accuracies, as log odds: a polynomial knows neither floor nor ceiling."""

from __future__ import annotations

import numpy as np

from evomerge.arrays import FloatArray

__all__ = ["are_shares", "log_odds", "steepness"]

# Added to either end. Without it the candidates that get nothing right are so far off that a model
# explains them and nothing else: of 27 genes, real accuracies of the next 20 trials were predicted
# to 0.134 instead of 0.090 after 60 trials.
_MARGIN = 0.05


def are_shares(losses: FloatArray) -> bool:
    """Tell whether all losses (n,) lie in [0, 1], or all in [-1, 0]."""
    return bool((np.abs(losses) <= 1).all() and not losses.min() < 0 < losses.max())


def log_odds(losses: FloatArray) -> FloatArray:
    """Return the log odds (n,) of losses that are shares; in the same order."""
    inner = _inside(losses)
    return np.asarray(np.sign(losses.sum()) * np.log(inner / (1 - inner)))


def steepness(losses: FloatArray) -> FloatArray:
    """Return how fast (n,) log odds change with the loss, 0 or more."""
    inner = _inside(losses)
    return np.asarray(1 / (inner * (1 - inner) * (1 + 2 * _MARGIN)))


def _inside(losses: FloatArray) -> FloatArray:
    return np.asarray((np.abs(losses) + _MARGIN) / (1 + 2 * _MARGIN))
