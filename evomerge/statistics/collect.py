"""Statistics by the names that methods ask for them by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property

from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.name import StatisticName
from evomerge.statistics.scores import ScoreStatistics, clips
from evomerge.statistics.tensor import TensorStatistics
from evomerge.statistics.variance import VarianceHistogram

__all__ = ["STATISTICS", "WITH_PARAMETER", "WholeModel", "measure"]


def _each(ask: Callable[[TensorStatistics, int], object]) -> Callable[[TensorStatistics], object]:
    return lambda tensor: [ask(tensor, i) for i in range(tensor.n_experts)]


STATISTICS: Mapping[str, Callable[[TensorStatistics], object]] = {
    "magnitudes": _each(TensorStatistics.magnitudes),
    "model_magnitudes": _each(TensorStatistics.magnitudes),  # the model's are summed on first use
    "moments": _each(TensorStatistics.moments),
    "model_moments": lambda t: [t.model_moments(i) for i in range(t.n_models)],
    "row_knots": _each(TensorStatistics.row_knots),
    "rank_knots": _each(TensorStatistics.rank_knots),
    "row_magnitudes": _each(TensorStatistics.row_magnitudes),
    "row_divergence": _each(TensorStatistics.row_divergence),
    "importance_quantiles": _each(TensorStatistics.importance),
    "model_gram": lambda t: t.model_gram,
    "task_gram": lambda t: t.task_gram,
    "row_gram": lambda t: t.row_gram,
    "row_task_gram": lambda t: t.row_task_gram,
    "column_task_gram": lambda t: t.column_task_gram,
    "variance": lambda t: t.variance,
    "model_variance": lambda t: t.variance,  # likewise
    "conflict": lambda t: t.conflict,
    "model_conflict": lambda t: t.conflict,
    "column_scores": TensorStatistics.column_scores,
    "row_scores": TensorStatistics.row_scores,
}
"""What a method may declare it needs. Masked sums are of one candidate's seed and are measured on
first use."""

WITH_PARAMETER: Mapping[str, Callable[[TensorStatistics, float], object]] = {
    "activity": TensorStatistics.activity,
    "model_scores": TensorStatistics.model_scores,
    "scores": TensorStatistics.scores,
    "signs": TensorStatistics.signs,
}
"""Statistics with a parameter of their own."""


def measure(tensor: TensorStatistics, wanted: Collection[str]) -> None:
    """Measure what is wanted of one tensor, which keeps it.

    Args:
        tensor: Its statistics.
        wanted: Names in ``STATISTICS``, or in ``WITH_PARAMETER`` with their parameter, as
            ``Method.statistics_used`` gives them; others are passed over.
    """
    for name in wanted:
        match StatisticName.parse(name):
            case StatisticName(statistic, ()) if statistic in STATISTICS:
                STATISTICS[statistic](tensor)
            case StatisticName(statistic, (float(parameter),)) if statistic in WITH_PARAMETER:
                WITH_PARAMETER[statistic](tensor, parameter)


class WholeModel:
    """Statistics over all tensors of a model, for shares of the whole model.

    Each is added up on first use; all that is kept of it is one histogram.

    Args:
        tensors: Returns the statistics of all tensors of the model.
    """

    def __init__(self, tensors: Callable[[], Iterable[TensorStatistics]]) -> None:
        self._tensors = tensors
        self._magnitudes: dict[int, MagnitudeHistogram] = {}
        self._scores: tuple[float, ScoreStatistics] | None = None  # the last ones asked for

    def magnitudes(self, expert: int) -> MagnitudeHistogram:
        """See ``TensorStatistics.magnitudes``."""
        if expert not in self._magnitudes:
            found = MagnitudeHistogram.union(t.magnitudes(expert) for t in self._tensors())
            self._magnitudes[expert] = found
        return self._magnitudes[expert]

    @cached_property
    def conflict(self) -> MagnitudeHistogram:
        """See ``TensorStatistics.conflict``."""
        return MagnitudeHistogram.union(tensor.conflict for tensor in self._tensors())

    @cached_property
    def variance(self) -> VarianceHistogram:
        """See ``TensorStatistics.variance``."""
        return VarianceHistogram.union([tensor.variance for tensor in self._tensors()])

    def scores(self, clip: float) -> ScoreStatistics:
        """See ``TensorStatistics.scores``; magnitudes are clipped where the model's are."""
        if self._scores is None or self._scores[0] != clip:
            tensors = list(self._tensors())
            low, high = clips([self.magnitudes(i) for i in range(tensors[0].n_experts)], clip)
            parts = [tensor.scores_within(low, high) for tensor in tensors]
            self._scores = clip, ScoreStatistics.union(parts)
        return self._scores[1]
