"""Places on the page: parallel coordinates, names of points, paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evomerge.analysis.gene_shares import gene_shares
from evomerge.analysis.report.coefficients import PathHop
from evomerge.analysis.report.labels import labels
from evomerge.analysis.report.parallel import parallel
from evomerge.analysis.report.path import draw_path

from ..synthetic import make_study, objectives, study_of, trial


def test_better_is_higher_also_where_less_is_better() -> None:
    mixed = (objectives(2)[0], objectives(2, "minimize")[1])
    trials = [trial(0, (0.2, 9.0), origin="base"), trial(1, (0.5, 4.0)), trial(2, (0.6, 5.0))]
    drawn = parallel(study_of(trials, mixed), None)
    assert drawn is not None
    accuracy, perplexity = drawn.axes
    assert (accuracy.bottom, accuracy.top) == (0.2, 0.6)
    assert (perplexity.bottom, perplexity.top) == (9.0, 4.0)
    heights = {line.number: line.heights for line in drawn.lines}
    assert heights[2][0] == heights[1][1] == drawn.top
    assert heights[0] == (drawn.bottom, drawn.bottom)


def test_one_objective_needs_genes_to_have_axes() -> None:
    trials = [
        replace(trial(n, (n / 40,)), params={"lambda": n / 40, "seed": (7 * n) % 40 / 40})
        for n in range(40)
    ]
    trials.append(trial(40, (0.5,), origin="base"))
    study = study_of(trials, objectives(1))
    assert parallel(study, None) is None
    drawn = parallel(study, gene_shares(study))
    assert drawn is not None
    assert [axis.name for axis in drawn.axes] == ["zoo_math", "lambda"]
    base = next(line for line in drawn.lines if line.number == 40)
    assert base.values == (0.5, None)
    assert base.heights[1] is None


def test_the_front_is_drawn_last_and_the_worst_left_out() -> None:
    drawn = parallel(make_study(2, n_trials=400, layers=2), None)
    assert drawn is not None
    assert drawn.n_trials == 404
    assert len(drawn.lines) == 250
    assert drawn.lines[-1].layer == "chosen"
    assert {line.layer for line in drawn.lines[:100]} == {"dominated"}


def test_names_keep_inside_and_off_one_another() -> None:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.2]])
    texts, (left, right, above) = labels(["alpha", "beta", "gamma"], corners, np.empty((0, 2)))
    assert texts == ["alpha", "beta", "gamma"]
    assert left.endswith("right")
    assert right.endswith("left")
    assert above.endswith("left")
    crowd = np.array([[0.52, 0.55], [0.56, 0.55], [0.6, 0.55]])  # what is to the upper right
    corners = np.array([[0.5, 0.5], [0.0, 0.0], [1.0, 1.0]])
    assert labels(["expert", "", ""], corners, crowd)[1][0] != "top right"


def test_names_of_one_place_are_written_together() -> None:
    marks = np.array([[0.0, 0.0], [1.0, 1.0], [0.005, 0.0], [0.0, 0.005]])
    texts, _ = labels(["base", "math", "list", "code"], marks, np.empty((0, 2)))
    assert texts == ["base, list, code", "math", "", ""]


def test_a_path_has_a_lane_per_model_and_a_station_per_hop() -> None:
    drawing = draw_path(
        (PathHop("math", 0, 1.0), PathHop("list", 5, 0.5), PathHop("math", 3, 1.25))
    )
    assert [name for name, _ in drawing.lanes] == ["math", "list"]
    first, second, third = drawing.stations
    assert first.y == third.y < second.y
    assert round(second.x - first.x, 6) == round(third.x - second.x, 6) > 0
    assert [s.layer for s in drawing.stations] == [0, 5, 3]
    assert [s.scale for s in drawing.stations] == ["", "×0.50", "×1.25"]
    assert third.x < drawing.width
