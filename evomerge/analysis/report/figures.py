"""The report's plotly figures, in the light palette; report.js recolours them for the dark."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
import plotly.graph_objects as go
import plotly.offline
from numpy.typing import NDArray

from evomerge.analysis.front import (
    Box,
    contenders,
    front,
    hypervolume_history,
    oriented,
    scaled_values,
)
from evomerge.analysis.interference import TOP, Comparison
from evomerge.analysis.intervals import Estimate
from evomerge.analysis.report.labels import labels
from evomerge.analysis.report.layers import Layer, Layers, layers_of
from evomerge.analysis.report.numbers import format_estimate
from evomerge.analysis.report.palette import LIGHT
from evomerge.analysis.report.scores import summaries, summary_measure
from evomerge.origins import BASE, EXPERT, UNIFORM, kind_and_name, model_label
from evomerge.study.records import Objective, StudyRecord, TrialRecord

__all__ = [
    "Figure",
    "front_figure",
    "hypervolume_figure",
    "interference_figures",
    "pair_figures",
    "plotly_js",
    "progress_figure",
    "tradeoff_figure",
]

Figure: TypeAlias = go.Figure
"""What a notebook shows, and ``write_image`` and ``write_html`` save."""

_MAX_PAIRS = 6
_MAX_ERROR_BARS = 40
_CROWD = 150  # more marks than this are drawn smaller
_MOST_NUMBERS = 20  # columns of a heat map whose cells have room for numbers
_ROOM_FOR_SCALE = 150  # pixels
_RISING = [[0, LIGHT["surface"]], [1, LIGHT["positive"]]]
_AROUND = [[0, LIGHT["negative"]], [0.5, LIGHT["surface"]], [1, LIGHT["positive"]]]
_SYMBOLS = {BASE: "square-open", EXPERT: "diamond-open", UNIFORM: "triangle-up-open"}


def plotly_js() -> str:
    """Return the plotly.js library that draws the figures in a browser."""
    return str(plotly.offline.get_plotlyjs())


def front_figure(study: StudyRecord) -> Figure:
    """Draw the front by itself: of one objective its progress, of three or more a line per trial.

    Unlike those of the report its axes can be moved, and its paper is not seen through.
    """
    draw = (progress_figure, tradeoff_figure, _profile_figure)[min(len(study.objectives), 3) - 1]
    figure = go.Figure(json.loads(draw(study)))
    figure.update_xaxes(fixedrange=False)
    figure.update_yaxes(fixedrange=False)
    figure.update_layout(
        dragmode="zoom", paper_bgcolor=LIGHT["surface"], plot_bgcolor=LIGHT["surface"]
    )
    return figure


def tradeoff_figure(study: StudyRecord) -> str:
    """Draw the front of a study of two objectives, as plotly JSON."""
    figure = _scatter(study, 0, 1, with_front_line=True)
    return _to_json(figure, height=500)


def _profile_figure(study: StudyRecord) -> str:
    """Draw each front trial as a line over three or more objectives, scaled by what is drawn."""
    figure = go.Figure()
    names = [_text(o.name) for o in study.objectives]
    layers = layers_of(study)
    drawn = (layers.front, layers.baselines, layers.chosen)
    values = oriented([trial for layer in drawn for trial in layer.trials], study.objectives)
    rows = iter(Box.around(values).scaled(values).tolist())
    for layer in drawn:
        for trial in layer.trials:
            figure.add_scatter(
                x=names,
                y=next(rows),
                mode="lines" if layer is layers.front else "lines+markers",
                line={
                    "color": layer.color,
                    "width": 3 if layer is layers.chosen else 1.2,
                    "dash": "dot" if layer is layers.baselines else "solid",
                },
                marker={"size": 7, "color": layer.color, "symbol": _symbol(trial)},
                opacity=min(0.45, 20 / len(layer.trials)) if layer is layers.front else 1,
                hovertext=_hover(study, trial),
                hoverinfo="text",
                name=layer.name,
                legendgroup=layer.name,
                showlegend=trial is layer.trials[0],
            )
    figure.update_yaxes(title_text="0 = worst of these, 1 = best")
    return _to_json(figure, height=420)


def pair_figures(study: StudyRecord) -> list[str]:
    """Draw pairs of three or more objectives, those that conflict most on the front first."""
    values = scaled_values(study, front(study))
    pairs = combinations(range(len(study.objectives)), 2)
    ordered = sorted(pairs, key=lambda pair: _correlation(values[:, pair[0]], values[:, pair[1]]))
    figures = [_scatter(study, i, j, with_front_line=False) for i, j in ordered[:_MAX_PAIRS]]
    return [_to_json(figure.update_layout(showlegend=False), height=300) for figure in figures]


def hypervolume_figure(study: StudyRecord) -> str:
    """Draw hypervolume against trials."""
    numbers, volumes = _corners(hypervolume_history(study))
    figure = go.Figure()
    figure.add_scatter(
        x=numbers,
        y=volumes,
        mode="lines",
        line={"color": LIGHT["accent"], "width": 2, "shape": "hv"},
        hovertemplate="after trial %{x}: %{y:.3f}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title_text="trial")
    figure.update_yaxes(title_text="hypervolume", rangemode="tozero")
    return _to_json(figure, height=320)


def progress_figure(study: StudyRecord) -> str:
    """Draw the mean (or the objective that stands for all) of every trial, and the best so far."""
    measure = summary_measure(study.objectives)
    layers = layers_of(study)
    figure = go.Figure()
    for layer in layers.back_to_front:
        if layer.trials:
            x = [float(trial.number) for trial in layer.trials]
            y = [measure.of(trial).value for trial in layer.trials]
            figure.add_trace(_points(study, layer, x, y).update(marker_size=6))
    figure.add_trace(_ring())
    merit = summaries(study)
    rated = [(trial.number, merit[trial.number]) for trial in contenders(study)]
    best = np.maximum.accumulate([value for _, value in rated])
    numbers, values = _corners([(n, b) for (n, _), b in zip(rated, best.tolist(), strict=True)])
    figure.add_scatter(
        x=numbers,
        y=[measure.sign * value for value in values],
        mode="lines",
        line={"color": LIGHT["accent"], "width": 2, "shape": "hv"},
        name="best so far",
        hoverinfo="skip",
    )
    figure.update_xaxes(title_text="trial")
    figure.update_yaxes(title_text=_text(measure.label))
    if measure.sign < 0:
        figure.update_yaxes(autorange="reversed")
    return _to_json(figure, height=320)


def interference_figures(comparison: Comparison) -> tuple[tuple[str, str, int], ...]:
    """Draw, part by part, how far the experts moved and how much they disagree.

    Returns:
        (title, plotly JSON, height in pixels) per heat map; one expert has no maps of pairs.
    """
    parts = [part.name.removeprefix("layer ") for part in comparison.parts]
    experts = [[e.relative_norm for e in part.experts] for part in comparison.parts]
    cosines = [[p.cosine for p in part.pairs] for part in comparison.parts]
    conflicts = [[p.top_conflict for p in part.pairs] for part in comparison.parts]
    names = [expert.name for expert in comparison.model.experts]
    pairs = [" / ".join(pair.experts) for pair in comparison.model.pairs]
    moved = "Size of the task vectors, as a share of the base's norm"
    found = [(moved, *_heat_map(names, parts, experts, _RISING))]
    if pairs:
        signs = f"Share of opposed signs among the {TOP:.0%} largest changes that both make"
        opposed = [[stop, _AROUND[2 - i][1]] for i, (stop, _) in enumerate(_AROUND)]
        found += [
            ("Cosine between task vectors", *_heat_map(pairs, parts, cosines, _AROUND, -1, 1)),
            (signs, *_heat_map(pairs, parts, conflicts, opposed, 0, 1)),
        ]
    return tuple(found)


def _heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    colours: Sequence[Sequence[object]],
    low: float = 0,
    high: float | None = None,
) -> tuple[str, int]:
    """Draw values[column][row], the first row on top; ``high`` is the largest value by default."""
    height = 90 + 28 * len(rows)
    figure = go.Figure()
    figure.add_heatmap(
        z=np.array(values, dtype=float).T,
        x=[_text(column) for column in columns],
        y=[_text(row) for row in rows],
        zmin=low,
        zmax=high,
        colorscale=[list(stop) for stop in colours],
        texttemplate="%{z:.2f}" if len(columns) <= _MOST_NUMBERS else None,
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
        showscale=height > _ROOM_FOR_SCALE,
        colorbar={"thickness": 10, "outlinewidth": 0, "nticks": 4},
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return _to_json(figure, height=height), height


def _scatter(study: StudyRecord, i: int, j: int, *, with_front_line: bool) -> go.Figure:
    figure = go.Figure()
    layers = layers_of(study)
    if with_front_line:
        _add_front_line(figure, study)
    for layer in layers.back_to_front:
        if not layer.trials:
            continue
        x, y = ([trial.values[k] for trial in layer.trials] for k in (i, j))
        points = _points(study, layer, x, y)
        if layer is layers.baselines:
            _add_labels(points, layer, layers, (i, j), study.objectives)
        if layer not in (layers.infeasible, layers.cloud) and len(layer.trials) <= _MAX_ERROR_BARS:
            points.update(error_x=_error_bar(layer, i), error_y=_error_bar(layer, j))
        figure.add_trace(points)
    figure.add_trace(_ring())
    for objective, axes in ((study.objectives[i], "xaxis"), (study.objectives[j], "yaxis")):
        is_minimized = objective.direction == "minimize"
        note = " (lower is better, axis reversed)" if is_minimized else ""
        figure.layout[axes].title.text = _text(objective.name) + note
        figure.layout[axes].autorange = "reversed" if is_minimized else True
    return figure


def _points(study: StudyRecord, layer: Layer, x: Sequence[float], y: Sequence[float]) -> go.Scatter:
    """Draw a layer; a crowd is small, also on disk: its points tell their coordinates alone."""
    is_crowd = len(layer.trials) > _CROWD
    kinds = list(dict.fromkeys(_symbol(trial) for trial in layer.trials))
    hover: dict[str, object] = {"hovertemplate": "trial %{customdata}: %{x}, %{y}<extra></extra>"}
    if not is_crowd:
        texts = [_hover(study, trial) for trial in layer.trials]
        hover = {"hovertext": texts, "hoverinfo": "text"}
    return go.Scatter(
        x=[_rounded(value) for value in x],
        y=[_rounded(value) for value in y],
        mode="markers",
        marker={
            "color": layer.color,
            "size": 12 if layer.name == "chosen" else 5 if is_crowd else 8,
            "symbol": kinds[0] if len(kinds) == 1 else [_symbol(t) for t in layer.trials],
            "line": {"width": 1.5 if layer.name == "baselines" else 0},
        },
        **hover,
        customdata=[trial.number for trial in layer.trials],
        unselected={"marker": {"opacity": 0.15}},
        name=layer.name,
        cliponaxis=False,
    )


def _corners(line: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Leave the points of a staircase where it rises, and its ends; apart: numbers and values."""
    ends = (0, len(line) - 1)
    kept = [p for i, p in enumerate(line) if i in ends or p[1] != line[i - 1][1]]
    return [number for number, _ in kept], [value for _, value in kept]


def _rounded(value: float) -> float:
    """Six digits: more cannot be seen, and are half of a page of many trials."""
    return float(f"{value:.6g}")


def _ring() -> go.Scatter:
    """Make room for the mark of the trial that the reader chooses."""
    return go.Scatter(
        x=[],
        y=[],
        mode="markers",
        marker={
            "size": 19,
            "symbol": "circle-open",
            "color": LIGHT["ink"],
            "line": {"width": 2.5},
        },
        name="shown",
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )


def _add_labels(
    points: go.Scatter,
    layer: Layer,
    layers: Layers,
    pair: tuple[int, int],
    objectives: Sequence[Objective],
) -> None:
    signs = np.array([objectives[k].sign for k in pair])
    others = (*layers.front.trials, *layers.chosen.trials, *layers.cloud.trials)

    def places(trials: Sequence[TrialRecord]) -> NDArray[np.float64]:
        values = np.array([[t.values[k] for k in pair] for t in trials], dtype=float)
        placed: NDArray[np.float64] = values.reshape(-1, 2) * signs
        return placed

    names = [_short_label(trial) for trial in layer.trials]
    texts, positions = labels(names, places(layer.trials), places(others))
    space = "\N{NO-BREAK SPACE}"  # between a name and its mark
    points.update(
        mode="markers+text",
        text=[f"{space}{_text(text)}{space}" if text else "" for text in texts],
        textposition=positions,
        textfont={"size": 12, "color": layer.color},
    )


def _add_front_line(figure: go.Figure, study: StudyRecord) -> None:
    """Draw the border of the dominated region: a staircase through the front."""
    trials = sorted(front(study), key=lambda t: t.values)
    figure.add_scatter(
        x=[t.values[0] for t in trials],
        y=[t.values[1] for t in trials],
        mode="lines",
        line={
            "color": LIGHT["accent"],
            "width": 1.5,
            "shape": "vh" if study.objectives[0].direction == "maximize" else "hv",
        },
        opacity=0.6,
        hoverinfo="skip",
        showlegend=False,
    )


def _error_bar(layer: Layer, k: int) -> dict[str, object]:
    size = [0.0 if math.isnan(trial.stderr[k]) else trial.stderr[k] for trial in layer.trials]
    return {"type": "data", "array": size, "color": LIGHT["cloud"], "thickness": 1, "width": 0}


def _symbol(trial: TrialRecord) -> str:
    return _SYMBOLS.get(kind_and_name(trial.origin)[0], "circle")


def _short_label(trial: TrialRecord) -> str:
    kind, name = kind_and_name(trial.origin)
    return name or kind


def _hover(study: StudyRecord, trial: TrialRecord) -> str:
    label = model_label(trial.origin, trial.number, study.noun)
    number = "" if label.endswith(str(trial.number)) else f", trial {trial.number}"
    lines = [f"<b>{_text(label)}</b>{number}"]
    for objective, value, stderr in zip(study.objectives, trial.values, trial.stderr, strict=True):
        lines.append(f"{_text(objective.name)} {format_estimate(Estimate(value, stderr))}")
    if not trial.is_feasible:
        lines.append("violates a constraint")
    return "<br>".join(lines)


def _text(text: str) -> str:
    """Plotly reads a few HTML tags in its texts; names are to be shown as they are."""
    return html.escape(text, quote=False)


def _correlation(x: Iterable[float], y: Iterable[float]) -> float:
    left, right = np.array(list(x)), np.array(list(y))
    if left.size < 2 or not (left.std() and right.std()):
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def _to_json(figure: go.Figure, *, height: int) -> str:
    axis = {
        "gridcolor": LIGHT["rule"],
        "linecolor": LIGHT["rule"],
        "zeroline": False,
        "title": {"font": {"size": 12, "color": LIGHT["muted"]}, "standoff": 10},
        "automargin": True,
        "fixedrange": True,  # a finger that scrolls the page must not drag the axes
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": LIGHT["muted"]},
        margin={"l": 8, "r": 12, "t": 34, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={
            "bgcolor": LIGHT["page"],
            "bordercolor": LIGHT["cloud"],
            "font": {"color": LIGHT["ink"]},
        },
        hovermode="closest",
        dragmode=False,
    )
    return str(figure.to_json())
