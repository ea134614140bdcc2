"""A data-flow path as a drawing: one lane per model, one station per layer that is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.analysis.report.coefficients import PathHop
from evomerge.analysis.report.numbers import format_number

__all__ = ["Drawing", "Station", "draw_path"]

_LEFT, _STEP, _LANE, _EDGE = 14, 50, 56, 22  # pixels; the first is for the models' names
_LETTER = 7.2


@dataclass(frozen=True)
class Station:
    """One hop.

    Attributes:
        x: Pixels from the left.
        y: Pixels from the top.
        layer: Which layer of the model.
        scale: What its input is multiplied by, for people; empty where it is left as it is.
        title: All of it in words.
    """

    x: float
    y: float
    layer: int
    scale: str
    title: str


@dataclass(frozen=True)
class Drawing:
    """Where everything is.

    Attributes:
        lanes: Name of each model and how far down it is, in pixels.
        stations: In the order they are run.
        width: Pixels.
        height: Pixels.
    """

    lanes: tuple[tuple[str, float], ...]
    stations: tuple[Station, ...]
    width: float
    height: float

    @property
    def line(self) -> str:
        """Points of the line through all stations, as SVG writes them."""
        return " ".join(f"{station.x:g},{station.y:g}" for station in self.stations)


def draw_path(path: Sequence[PathHop]) -> Drawing:
    """Place the hops of a path, at least one."""
    lanes = {source: _EDGE + _LANE * i for i, source in enumerate(_sources(path))}
    left = _LEFT + _LETTER * max(map(len, lanes)) + _EDGE
    stations = tuple(
        Station(
            x=round(left + _STEP * i, 1),
            y=lanes[step.source],
            layer=step.layer,
            scale="" if step.scale == 1 else f"×{step.scale:.2f}",
            title=f"hop {i + 1}: layer {step.layer} of {step.source}, "
            f"its input times {format_number(step.scale)}",
        )
        for i, step in enumerate(path)
    )
    width = stations[-1].x + _EDGE
    return Drawing(tuple(lanes.items()), stations, width, _EDGE + _LANE * len(lanes))


def _sources(path: Sequence[PathHop]) -> list[str]:
    return sorted({step.source for step in path}, key=[step.source for step in path].index)
