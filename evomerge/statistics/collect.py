"""All statistics that methods asked for, of all tensors, in one streaming read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache

from evomerge.errors import CheckpointError
from evomerge.statistics.finite import non_finite_fault
from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.tensor import TensorStatistics

__all__ = ["STATISTICS", "Progress", "collect", "whole_model"]

Progress = Callable[[int, int], None]


def _each(ask: Callable[[TensorStatistics, int], object]) -> Callable[[TensorStatistics], object]:
    return lambda tensor: [ask(tensor, i) for i in range(tensor.n_experts)]


STATISTICS: Mapping[str, Callable[[TensorStatistics], object]] = {
    "magnitudes": _each(TensorStatistics.magnitudes),
    "moments": _each(TensorStatistics.moments),
    "model_moments": lambda t: [t.model_moments(i) for i in range(t.n_models)],
    "row_knots": _each(TensorStatistics.row_knots),
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
"""What a method may declare it needs. ``activity``, ``scores`` and masked sums have parameters of
their own and are measured on first use."""


def collect(
    tensors: Mapping[str, TensorStatistics],
    wanted: Collection[str],
    progress: Progress | None = None,
) -> None:
    """Measure what is wanted, tensor after tensor, and refuse NaN and infinity on the way.

    Args:
        tensors: Statistics by tensor name; they keep what is measured.
        wanted: Names in ``STATISTICS``, as methods declare them; others are passed over, being
            measured on first use.
        progress: Called after each tensor with the number done and the number in all.

    Raises:
        CheckpointError: Some model holds NaN or infinity; one line per tensor, naming its file.
            What is not finite is found, but nothing more measured, from the first one on.
    """
    faults: list[str] = []
    for done, (name, tensor) in enumerate(tensors.items(), start=1):
        faults += _non_finite(name, tensor)
        if not faults:
            _measure(tensor, wanted)
        if progress is not None:
            progress(done, len(tensors))
    if faults:
        raise CheckpointError("\n".join(faults))


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


def _non_finite(name: str, tensor: TensorStatistics) -> Iterator[str]:
    for index in range(tensor.n_models):
        if n_bad := tensor.non_finite(index):
            yield non_finite_fault(name, tensor.file_of(index), n_bad, tensor.n)


def _measure(tensor: TensorStatistics, wanted: Collection[str]) -> None:
    for statistic, measure in STATISTICS.items():
        if statistic in wanted:
            measure(tensor)
