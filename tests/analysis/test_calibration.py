"""Noise, signal and advice, against brute force."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean, stdev

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evomerge.analysis.calibration import Measurement, advice, calibration
from evomerge.analysis.intervals import wilson_interval


def measured(origin: str, scores: list[float]) -> Measurement:
    stderr = stdev(scores) / math.sqrt(len(scores))
    return Measurement(origin, fmean(scores), stderr, len(scores), dict(enumerate(scores)))


def measured_without_items(origin: str, value: float, stderr: float) -> Measurement:
    return Measurement(origin, value, stderr, 100)


@st.composite
def answers(draw: st.DrawFn) -> list[list[float]]:
    n = draw(st.integers(2, 12))
    models = st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)
    return draw(st.lists(models, min_size=2, max_size=4))


@given(answers())
@example([[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0]])  # needs 3920 items to the last digit
def test_discordance_and_resolution_are_those_of_every_pair_of_parents(rows):
    origins = ["base", *(f"expert:e{i}" for i in range(len(rows) - 1))]
    found = calibration("t", "acc", list(map(measured, origins, rows)), [0.4, 0.5])
    n = len(rows[0])
    discordances, variances = [], []
    for left, right in combinations(rows, 2):
        d = sum(a != b for a, b in zip(left, right, strict=True)) / n
        gain = fmean(left) - fmean(right)
        discordances.append(d)
        variances.append(d - gain**2)
    assert found.discordance == pytest.approx(fmean(discordances))
    assert found.resolution == pytest.approx(
        1.96 * math.sqrt(max(0, fmean(variances)) / n), abs=1e-6
    )
    wanted = fmean(variances) * 98**2
    assert wanted - 1e-3 <= found.items_for_two_points < wanted + 1
    assert found.spread == pytest.approx(max(map(fmean, rows)) - min(map(fmean, rows)))


def test_noise_is_that_of_the_items_and_that_of_small_changes():
    parents = [measured("base", [0, 1, 1, 0]), measured("expert:a", [1, 1, 1, 0])]
    found = calibration("t", "acc", parents, [0.5, 0.5, 0.75])
    assert found.stderr == pytest.approx(math.sqrt((1 / 12 + 1 / 16) / 2))
    assert found.jitter == pytest.approx(stdev([0.5, 0.5, 0.75]))
    assert found.signal_to_noise == pytest.approx(0.25 / math.hypot(found.stderr, found.jitter))


def test_the_average_is_no_parent():
    rows = [("base", [0, 1]), ("expert:a", [0, 1]), ("uniform", [1, 1])]
    found = calibration("t", "acc", [measured(*row) for row in rows], [0.5, 0.5])
    assert (found.spread, found.resolution) == (0, 0)
    assert [m.origin for m in found.models] == ["base", "expert:a", "uniform"]


def test_shares_get_wilson_intervals_and_other_metrics_their_standard_error():
    shares = [measured("base", [0, 0, 0]), measured("expert:a", [1, 0, 1])]
    base, expert = calibration("t", "acc", shares, [0, 0]).models
    assert (base.low, base.high) == wilson_interval(0, 3)
    assert (expert.low, expert.high) == wilson_interval(2 / 3, 3)
    others = [measured("base", [0.5, 0.1]), measured("expert:a", [1, 0])]
    found = calibration("t", "f1", others, [0, 0])
    assert found.models[0].high - 0.3 == pytest.approx(1.96 * others[0].stderr, rel=1e-3)
    assert found.items_for_two_points is None
    assert math.isnan(found.discordance)


def test_without_item_scores_models_count_as_independent():
    parents = [measured_without_items("base", 1.0, 0.03)]
    parents.append(measured_without_items("expert:a", 2.0, 0.04))
    assert calibration("t", "bpb", parents, [1, 1]).resolution == pytest.approx(1.96 * 0.05)


def test_a_metric_without_standard_error_is_judged_by_small_changes_alone():
    parents = [measured_without_items(o, v, math.nan) for o, v in (("base", 1), ("expert:a", 2))]
    found = calibration("t", "bleu", parents, [1.0, 1.2])
    assert found.signal_to_noise == pytest.approx(1 / stdev([1.0, 1.2]))
    assert math.isnan(found.models[0].low)


def pair(*, spread: float, stderr: float, metric: str = "acc"):
    models = [measured_without_items("base", 0.4, stderr)]
    models.append(measured_without_items("expert:a", 0.4 + spread, stderr))
    return calibration("t", metric, models, [0.4, 0.4])


def test_advice_follows_the_signal():
    noisy, clear = pair(spread=0.03, stderr=0.02), pair(spread=0.3, stderr=0.02)
    smooth = pair(spread=0.3, stderr=0.01, metric="gold_bpb")
    assert advice(clear, [smooth]) == "worth searching on"
    assert advice(noisy, []) == "parents hardly differ beyond noise"
    assert advice(noisy, [smooth]).endswith("search on gold_bpb, report acc")
    assert advice(noisy, [noisy]) == advice(noisy, [])


def test_advice_counts_the_items_that_two_points_need():
    found = calibration(
        "t", "acc", [measured("base", [0, 1] * 50), measured("expert:a", [1] * 100)], [0.5, 0.5]
    )
    assert found.items_for_two_points == 2401  # 98^2 / 4
    assert advice(found, []).endswith("2401 items would show 2 points")


def test_parents_that_answer_alike_are_nothing_to_search_for():
    same = [measured("base", [0, 1]), measured("expert:a", [0, 1])]
    assert "leave it out" in advice(calibration("t", "acc", same, [0.5, 0.5]), [])


def test_equal_gains_on_every_item_are_resolved_exactly():
    parents = [measured("base", [0.1, 0.3, 0.7]), measured("expert:a", [0.2, 0.4, 0.8])]
    assert calibration("t", "f1", parents, [0, 0]).resolution == pytest.approx(0, abs=1e-9)
