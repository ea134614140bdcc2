"""Where the names of marked points go, so that they cover neither marks nor one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.arrays import FloatArray

__all__ = ["labels"]

_Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels

_WIDTH, _HEIGHT = 230.0, 200.0  # the smallest plot: one of three side by side
_LETTER, _LINE, _MARK = 6.8, 14.0, 7.0  # pixels
_EDGE = 0.07  # of the plot, which plotly leaves free around the points
_SIDES = {"right": 0.0, "left": -1.0, "center": -0.5}
_LEVELS = {"top": -1.0, "bottom": 0.0, "middle": -0.5}
_PLACES = [
    f"{level} {side}"
    for side in _SIDES
    for level in _LEVELS
    if (level, side) != ("middle", "center")
]


def labels(
    names: Sequence[str], marks: FloatArray, others: FloatArray
) -> tuple[list[str], list[str]]:
    """Choose a side for every name, one after the other, with the least in its way.

    Args:
        names: Of the marks; those of marks in one place are written together, at the first.
        marks: (n, 2) where they are, in the units of the axes, as they rise on the page.
        others: (m, 2) points without a name.

    Returns:
        Texts, and ``textposition`` of plotly, one per mark.
    """
    pixels = _pixels(np.vstack([marks, others]))
    texts = _together(names, pixels[: len(names)])
    taken = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in pixels.tolist()]
    chosen = []
    for text, (x, y) in zip(texts, pixels.tolist(), strict=False):
        boxes = {place: _box(text, x, y, place) for place in _PLACES}
        best = min(_PLACES, key=lambda place: _trouble(boxes[place], taken))
        chosen.append(best)
        if text:
            taken.append(boxes[best])
    return texts, chosen


def _together(names: Sequence[str], pixels: FloatArray) -> list[str]:
    """Write the names of marks that cover one another at the first of them."""
    texts: list[list[str]] = [[] for _ in names]
    for i, name in enumerate(names):
        near = np.abs(pixels[: i + 1] - pixels[i]).max(axis=1) < _MARK
        texts[next(k for k in range(i + 1) if near[k] and (texts[k] or k == i))].append(name)
    return [", ".join(text) for text in texts]


def _pixels(points: FloatArray) -> FloatArray:
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    share = (points - low) / np.where(span > 0, span, 1.0)
    share = _EDGE + (1 - 2 * _EDGE) * share
    pixels: FloatArray = np.column_stack([share[:, 0], 1 - share[:, 1]]) * (_WIDTH, _HEIGHT)
    return pixels


def _box(name: str, x: float, y: float, place: str) -> _Box:
    level, side = place.split()
    width = _LETTER * len(name)
    gap = _MARK * (1 if side == "right" else -1 if side == "left" else 0)
    lift = _MARK * (-1 if level == "top" else 1 if level == "bottom" else 0)
    left = x + _SIDES[side] * width + gap
    top = y + _LEVELS[level] * _LINE + lift
    return left, top, left + width, top + _LINE


def _trouble(box: _Box, taken: Sequence[_Box]) -> float:
    """Add up what a name would cover, and twice what of it would be outside the plot."""
    left, top, right, bottom = box
    outside = max(0.0, -left) + max(0.0, right - _WIDTH)
    beyond = max(0.0, -top) + max(0.0, bottom - _HEIGHT)
    covered = sum(
        max(0.0, min(right, r) - max(left, x)) * max(0.0, min(bottom, b) - max(top, t))
        for x, t, r, b in taken
    )
    return covered + 2 * (outside * _LINE + beyond * (right - left))
