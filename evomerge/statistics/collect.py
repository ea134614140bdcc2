"""Statistics by the names that methods ask for them by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache

from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.tensor import TensorStatistics

__all__ = ["STATISTICS", "WITH_PARAMETER", "measure", "whole_model"]


def _each(ask: Callable[[TensorStatistics, int], object]) -> Callable[[TensorStatistics], object]:
    return lambda tensor: [ask(tensor, i) for i in range(tensor.n_experts)]


STATISTICS: Mapping[str, Callable[[TensorStatistics], object]] = {
    "magnitudes": _each(TensorStatistics.magnitudes),
    "model_magnitudes": _each(TensorStatistics.magnitudes),  # the model's are summed on first use
    "moments": _each(TensorStatistics.moments),
    "model_moments": lambda t: [t.model_moments(i) for i in range(t.n_models)],
    "row_knots": _each(TensorStatistics.row_knots),
    "rank_knots": _each(TensorStatistics.rank_knots),
    "row_threshold": _each(lambda t, i: t.row_threshold(i, 0.5)),
    "row_divergence": _each(TensorStatistics.row_divergence),
    "importance_quantiles": _each(TensorStatistics.importance),
    "model_gram": lambda t: t.model_gram,
    "task_gram": lambda t: t.task_gram,
    "row_gram": lambda t: t.row_gram,
    "row_task_gram": lambda t: t.row_task_gram,
    "variance": lambda t: t.variance,
    "conflict": lambda t: t.conflict,
    "column_scores": TensorStatistics.column_scores,
}
"""What a method may declare it needs. Masked sums are of one candidate's seed and are measured on
first use."""

WITH_PARAMETER: Mapping[str, Callable[[TensorStatistics, float], object]] = {
    "activity": TensorStatistics.activity,
    "scores": TensorStatistics.scores,
    "signs": TensorStatistics.signs,
}
"""Statistics with a parameter of their own, which follows their name and a space."""


def measure(tensor: TensorStatistics, wanted: Collection[str]) -> None:
    """Measure what is wanted of one tensor, which keeps it.

    Args:
        tensor: Its statistics.
        wanted: Names in ``STATISTICS``, or in ``WITH_PARAMETER`` with their parameter, as
            ``Method.statistics_used`` gives them; others are passed over.
    """
    for name in wanted:
        statistic, _, parameter = name.partition(" ")
        if statistic in STATISTICS:
            STATISTICS[statistic](tensor)
        elif statistic in WITH_PARAMETER and parameter:
            WITH_PARAMETER[statistic](tensor, float(parameter))


def whole_model(
    tensors: Callable[[], Iterable[TensorStatistics]],
) -> Callable[[int], MagnitudeHistogram]:
    """Make the ``model_magnitudes`` of ``TensorStatistics``: shares of the whole model.

    Args:
        tensors: Returns the statistics of all tensors of the model; called on first use.

    Returns:
        A function from expert to its histogram over all tensors, which is added up once.
    """

    @cache
    def magnitudes(expert: int) -> MagnitudeHistogram:
        return MagnitudeHistogram.union(tensor.magnitudes(expert) for tensor in tensors())

    return magnitudes
