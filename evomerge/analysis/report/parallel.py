"""Parallel coordinates: trials as lines over objectives and genes, as places of an SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evomerge.analysis.front import complete
from evomerge.analysis.gene_shares import GeneShares
from evomerge.analysis.report.layers import Layers, layers_of
from evomerge.analysis.report.numbers import format_number
from evomerge.analysis.report.scores import summaries
from evomerge.origins import model_label
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Line", "Parallel", "ScoreAxis", "parallel"]

_AHEAD = ("chosen", "baselines", "front")  # layers that are drawn first
_MOST_LINES = 250
_MOST_GENES = 3
_MOST_LETTERS = 18
_LETTER = 7.0  # pixels
_TOP, _BOTTOM = 24, 266  # pixels

_Read = Callable[[TrialRecord], float | None]
_Drawn = tuple[str, TrialRecord]  # the name of its layer, and a trial


@dataclass(frozen=True)
class ScoreAxis:
    """One objective or gene.

    Attributes:
        name: As it is.
        text: As it is drawn.
        is_gene: Whether it is no objective.
        x: Place in percent of the width.
        anchor: Of its texts: ``start``, ``middle`` or ``end``.
        bottom: The value at the lower end; of objectives the worst.
        top: The value at the upper end.
    """

    name: str
    text: str
    is_gene: bool
    x: float
    anchor: str
    bottom: float
    top: float

    @property
    def ends(self) -> tuple[str, str]:
        """The values at both ends, for people, the upper one first."""
        return format_number(self.top), format_number(self.bottom)

    def height(self, value: float) -> float:
        """Say how far down a value is, in pixels."""
        span = self.top - self.bottom
        share = (value - self.bottom) / span if span else 0.5
        return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)


@dataclass(frozen=True)
class Line:
    """One trial.

    Attributes:
        number: Trial number.
        label: What it is.
        layer: How it is drawn.
        values: One per axis; ``None`` where it has no such gene.
        heights: The same in pixels from the top.
    """

    number: int
    label: str
    layer: str
    values: tuple[float | None, ...]
    heights: tuple[float | None, ...]


@dataclass(frozen=True)
class Parallel:
    """What is drawn.

    Attributes:
        axes: From left to right.
        lines: From the background to the foreground.
        n_trials: How many there are to draw.
        width: The least width in pixels at which texts have room.
    """

    axes: tuple[ScoreAxis, ...]
    lines: tuple[Line, ...]
    n_trials: int
    width: int

    @property
    def top(self) -> int:
        """Where axes begin, in pixels."""
        return _TOP

    @property
    def bottom(self) -> int:
        """Where axes end, in pixels."""
        return _BOTTOM


def parallel(study: StudyRecord, genes: GeneShares | None) -> Parallel | None:
    """Draw the trials of a study over its objectives, and the genes that matter most.

    Args:
        study: As it stands.
        genes: Of which those that are numbers, and matter more than chance has it, get an axis.

    Returns:
        ``None`` with less than two axes, or nothing to draw.
    """
    layers = layers_of(study)
    drawn = _drawn(study, layers)
    columns = [_Column(o.name, _objective(i), o.sign) for i, o in enumerate(study.objectives)]
    columns += [_Column(name, _gene(name), 1.0, is_gene=True) for name in _shown(genes, drawn)]
    if not drawn or len(columns) < 2:
        return None
    axes = tuple(_axis(column, i, len(columns), drawn) for i, column in enumerate(columns))
    return Parallel(
        axes=axes,
        lines=tuple(
            _line(layer, trial, model_label(trial.origin, trial.number, study.noun), axes, columns)
            for layer, trial in drawn
        ),
        n_trials=len(complete(study)),
        # Texts at both ends stand on one side of their axis, where half of the next one is, too.
        width=round(1.5 * _LETTER * max(len(a.text) for a in axes) * (len(axes) - 1)),
    )


@dataclass(frozen=True)
class _Column:
    """What an axis shows."""

    name: str
    read: _Read
    sign: float
    is_gene: bool = False


def _drawn(study: StudyRecord, layers: Layers) -> list[_Drawn]:
    """List trials with the name of their layer; of many dominated ones the best."""
    merit = summaries(study)
    found = [
        (layer.name.partition(",")[0], t)
        for layer in reversed(layers.back_to_front)
        for t in layer.trials
    ]
    of_front = [pair for pair in found if pair[0] in _AHEAD]
    rest = [pair for pair in found if pair[0] not in _AHEAD]
    rest.sort(key=lambda pair: -merit[pair[1].number])
    return list(reversed([*of_front, *rest][:_MOST_LINES]))


def _shown(genes: GeneShares | None, drawn: Sequence[_Drawn]) -> list[str]:
    if genes is None:
        return []
    clear = [gene for gene, shares in genes.rows if max(shares) > genes.chance]
    numbers = [g for g in clear if any(_gene(g)(trial) is not None for _, trial in drawn)]
    return numbers[:_MOST_GENES]


def _objective(i: int) -> _Read:
    return lambda trial: trial.values[i]


def _gene(name: str) -> _Read:
    def read(trial: TrialRecord) -> float | None:
        value = trial.params.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    return read


def _axis(column: _Column, i: int, n: int, drawn: Sequence[_Drawn]) -> ScoreAxis:
    values = [value for _, trial in drawn if (value := column.read(trial)) is not None]
    ends = min(values), max(values)
    bottom, top = ends if column.sign > 0 else ends[::-1]
    name = column.name
    return ScoreAxis(
        name=name,
        text=_short(name),
        is_gene=column.is_gene,
        x=round(1 + 98 * i / (n - 1), 2),
        anchor="start" if i == 0 else "end" if i == n - 1 else "middle",
        bottom=bottom,
        top=top,
    )


def _short(name: str) -> str:
    """Leave out the first parts of a long name, else its end."""
    rest = name
    while len(rest) > _MOST_LETTERS and "." in rest:
        rest = rest.partition(".")[2]
    shown = rest if rest == name else f"…{rest}"
    return shown if len(shown) <= _MOST_LETTERS + 1 else f"{shown[:_MOST_LETTERS]}…"


def _line(
    layer: str,
    trial: TrialRecord,
    label: str,
    axes: Sequence[ScoreAxis],
    columns: Sequence[_Column],
) -> Line:
    values = tuple(column.read(trial) for column in columns)
    heights = tuple(
        None if value is None else axis.height(value)
        for axis, value in zip(axes, values, strict=True)
    )
    return Line(trial.number, label, layer, values, heights)
