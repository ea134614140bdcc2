"""What a metric can tell apart, before a search: its noise, its signal, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from evomerge.analysis.intervals import confidence_interval
from evomerge.origins import is_single_model

__all__ = ["Calibration", "Interval", "Measurement", "advice", "calibration"]

_Z = 1.96  # of a 95 % interval
_POINTS = 0.02  # the difference that advice on the number of items is about
# Four equally good models spread over more than 3.6 standard errors in 1 of 20 cases (Tukey's
# studentized range), so a larger spread is signal.
_CLEAR = 4.0


@dataclass(frozen=True)
class Measurement:
    """One model scored in one metric of one task.

    Attributes:
        origin: ``base``, ``expert:NAME`` or ``uniform``.
        value: The metric.
        stderr: Its standard error; NaN where the metric has none.
        n: Items behind it.
        items: Score by item; empty where the metric has no number per item.
    """

    origin: str
    value: float
    stderr: float
    n: int
    items: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_share(self) -> bool:
        """Whether the value is a share of items solved."""
        scores = list(self.items.values())
        is_binary = bool(scores) and set(scores) <= {0.0, 1.0}
        return is_binary and math.isclose(math.fsum(scores) / len(scores), self.value, abs_tol=1e-9)


@dataclass(frozen=True)
class Interval:
    """One model's score with its 95 % interval."""

    origin: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """How well one metric of one task tells models apart.

    Attributes:
        task: lm-eval task or group.
        metric: Metric name.
        n_items: Items behind each score.
        models: Base, experts and their uniform average.
        spread: Best minus worst parent (base and experts).
        stderr: Noise of drawing the items: root mean square over parents.
        jitter: Noise of the landscape: standard deviation under small changes of a merge.
        signal_to_noise: ``spread`` over both noises together; NaN where there is neither.
        discordance: Share of items on which two parents differ, mean over pairs; NaN where items
            are not simply right or wrong.
        resolution: Smallest difference of two models on the same items that is clear at 95 %, mean
            over pairs of parents; an upper bound where there are no item scores.
        items_for_two_points: How many items show a difference of 0.02; ``None`` where the metric is
            no share of items.
    """

    task: str
    metric: str
    n_items: int
    models: tuple[Interval, ...]
    spread: float
    stderr: float
    jitter: float
    signal_to_noise: float
    discordance: float
    resolution: float
    items_for_two_points: int | None


def calibration(
    task: str, metric: str, models: Sequence[Measurement], perturbed: Sequence[float]
) -> Calibration:
    """Measure how well a metric tells models apart.

    Args:
        task: Task or group.
        metric: Metric name.
        models: Scored on the same items; base and at least one expert among them.
        perturbed: The metric of several merges that differ very little.

    Source:
        Heineman et al. 2025, "Signal and Noise", arXiv:2508.13144 (signal-to-noise; merges that
        differ little stand in for neighbouring checkpoints); Miller 2024, "Adding Error Bars to
        Evals", arXiv:2411.00640, section 4.2 (paired errors).
    """
    parents = [m for m in models if is_single_model(m.origin)]
    pairs = list(combinations(parents, 2))
    n_items = min(m.n for m in models)
    spread = max(p.value for p in parents) - min(p.value for p in parents)
    stderr = math.sqrt(np.mean([p.stderr**2 for p in parents]))
    jitter = float(np.std(perturbed, ddof=1))
    variance = float(np.mean([_difference_variance(*pair) for pair in pairs]))
    is_share = all(m.is_share for m in models)
    return Calibration(
        task=task,
        metric=metric,
        n_items=n_items,
        models=tuple(_interval(m) for m in models),
        spread=spread,
        stderr=stderr,
        jitter=jitter,
        signal_to_noise=_ratio(spread, math.hypot(0.0 if math.isnan(stderr) else stderr, jitter)),
        discordance=float(np.mean([_discordance(*p) for p in pairs])) if is_share else math.nan,
        resolution=_Z * math.sqrt(variance / n_items),
        items_for_two_points=_items_for(variance) if is_share else None,
    )


def advice(found: Calibration, smooth: Sequence[Calibration]) -> str:
    """Say in one line what to do with an objective.

    Args:
        found: The objective's own metric.
        smooth: Smooth metrics of the same task.
    """
    if found.spread == 0 and found.resolution == 0:
        return "every parent answers every item alike: leave it out, or take harder items"
    if found.signal_to_noise >= _CLEAR:
        lines = ["worth searching on"]
    else:
        clear = [c for c in smooth if c.signal_to_noise >= _CLEAR]
        best = max(clear, key=lambda c: c.signal_to_noise, default=None)
        lines = ["parents hardly differ beyond noise"]
        lines += [f"search on {best.metric}, report {found.metric}"] if best else []
    wanted = found.items_for_two_points
    if wanted is not None and wanted > found.n_items:
        lines.append(f"{wanted} items would show 2 points")
    return "; ".join(lines)


def _interval(model: Measurement) -> Interval:
    bounds = confidence_interval(model.value, model.stderr, model.n if model.is_share else None)
    return Interval(model.origin, model.value, *bounds)


def _difference_variance(left: Measurement, right: Measurement) -> float:
    """Variance of one item's difference.

    Where items are right or wrong it is ``d - D**2``, with ``d`` the share of items on which the
    two differ and ``D`` the mean difference. Without item scores the two count as independent, an
    upper bound as a rule.
    """
    gains = _gains(left, right)
    if not len(gains):
        return min(left.n, right.n) * (left.stderr**2 + right.stderr**2)
    return float(np.var(gains))


def _items_for(variance: float) -> int:
    """Count the items that resolve ``_POINTS``; rounding errors must not add one."""
    return math.ceil(round(variance * (_Z / _POINTS) ** 2, 6))


def _discordance(left: Measurement, right: Measurement) -> float:
    return float(np.mean(_gains(left, right) != 0))


def _gains(left: Measurement, right: Measurement) -> np.ndarray:
    shared = sorted(left.items.keys() & right.items.keys())
    return np.array([left.items[item] - right.items[item] for item in shared])


def _ratio(signal: float, noise: float) -> float:
    if noise > 0:
        return signal / noise
    return math.inf if signal > 0 else math.nan
