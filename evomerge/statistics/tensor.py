"""The statistics of one tensor across base and experts, computed on first use and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import Float32Array, FloatArray
from evomerge.statistics.activity import activity_counts, conflict
from evomerge.statistics.cache import Origin, StatisticsCache
from evomerge.statistics.columns import column_scores, row_scores
from evomerge.statistics.gram import gram_of_columns, gram_of_rows, gram_of_tiles
from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.kept import KeptStatistics
from evomerge.statistics.masked import MaskedSums
from evomerge.statistics.moments import Moments
from evomerge.statistics.reading import LazyTensor, TensorReader
from evomerge.statistics.rows import (
    RANK_KNOTS,
    RowMagnitudes,
    centred_ties,
    magnitudes_at,
    row_divergence,
)
from evomerge.statistics.scores import ScoreStatistics, clips
from evomerge.statistics.signs import SignCounts
from evomerge.statistics.variance import VarianceHistogram

__all__ = ["ModelStatistics", "TensorStatistics"]


class ModelStatistics(Protocol):
    """Statistics over all tensors of a model; those of a tensor of the same names added up."""

    def magnitudes(self, expert: int) -> MagnitudeHistogram:
        """See ``TensorStatistics.magnitudes``."""

    @property
    def variance(self) -> VarianceHistogram:
        """See ``TensorStatistics.variance``."""

    @property
    def conflict(self) -> MagnitudeHistogram:
        """See ``TensorStatistics.conflict``."""

    def scores(self, clip: float) -> ScoreStatistics:
        """See ``TensorStatistics.scores``."""


class TensorStatistics:
    """What a method may ask about one tensor when it lowers a recipe.

    Nothing here depends on coefficients or densities, so one computation serves every candidate.
    Task vectors τ_i are expert minus base in float32, or the expert itself where there is no base.
    Elements count in row-major order; a row runs along the last dimension, and a one-dimensional
    tensor is one row. Everything is read in tiles and kept once computed, also on disk with a
    ``cache``.

    Args:
        base: Base tensor, or ``None`` for methods without a base.
        experts: One tensor per expert in recipe order, shaped like the base; or a function that
            returns it, for tensors that should not stay in memory.
        origins: Where each model's tensor came from, the base first (if any); saves hashing.
        cache: Where results are kept between processes; ``None`` keeps them in memory only.
        model: Statistics over all tensors of the model; by default this tensor counts as all.
    """

    def __init__(
        self,
        base: LazyTensor | None,
        experts: Sequence[LazyTensor],
        *,
        origins: Sequence[Origin] | None = None,
        cache: StatisticsCache | None = None,
        model: ModelStatistics | None = None,
    ) -> None:
        self._reader = TensorReader(base, experts)
        self._kept = KeptStatistics(self._reader, origins, cache)
        self._model: ModelStatistics = model or self
        self._last_masked: dict[int, tuple[int, MaskedSums]] = {}

    @property
    def n_experts(self) -> int:
        """Number of experts."""
        return self._reader.n_experts

    @property
    def n_models(self) -> int:
        """Number of models: the experts, and the base if there is one."""
        return len(self._reader.everyone)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self._reader.shape

    @property
    def n(self) -> int:
        """Number of elements."""
        return self._reader.n

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._reader.rows

    @property
    def columns(self) -> int:
        """Length of a row."""
        return self._reader.columns

    def magnitudes(self, expert: int) -> MagnitudeHistogram:
        """Return the magnitude histogram of one expert's task vector."""
        return self._kept.record(
            "magnitudes",
            self._reader.pair(expert),
            MagnitudeHistogram,
            lambda: MagnitudeHistogram.of(self._reader.task_vector(expert)),
        )

    def model_magnitudes(self, expert: int) -> MagnitudeHistogram:
        """Return the magnitude histogram of one expert over all tensors of the model."""
        return self._model.magnitudes(expert)

    @property
    def model_variance(self) -> VarianceHistogram:
        """Histogram of the variance across experts over all tensors of the model."""
        return self._model.variance

    @property
    def model_conflict(self) -> MagnitudeHistogram:
        """Histogram of the conflict between experts over all tensors of the model."""
        return self._model.conflict

    def moments(self, expert: int) -> Moments:
        """Return the moments of one expert's task vector."""
        return self._kept.record(
            "moments",
            self._reader.pair(expert),
            Moments,
            lambda: Moments.of(self._reader.task_vector(expert)),
        )

    def model_moments(self, index: int) -> Moments:
        """Return the moments of a model itself: 0 is the base (if any), experts follow."""
        return self._kept.record(
            "model_moments", (index,), Moments, lambda: Moments.of(self._reader.model(index))
        )

    def non_finite(self, index: int) -> int:
        """Count the NaN and infinite numbers of a model: 0 is the base (if any), experts follow."""
        return self._kept.content(index).non_finite

    def digest(self, index: int) -> str:
        """Name what a model's tensor holds: 0 is the base (if any), experts follow."""
        return self._kept.content(index).digest

    def masked_l1(self, expert: int, key: int, keep: float) -> float:
        """Sum |τ| over what ``RandomMask(key, keep)`` keeps."""
        return self._masked(expert, key).kept_l1(keep)

    def masked_l2(self, expert: int, key: int, keep: float) -> float:
        """Sum τ² (the squared norm) over what ``RandomMask(key, keep)`` keeps."""
        return self._masked(expert, key).kept_l2(keep)

    def row_knots(self, expert: int, knots: int = 64) -> Float32Array:
        """Return the magnitudes of τ at evenly spaced ranks of each row.

        Returns:
            (rows, knots) float32, ascending: knot j has rank j / (knots − 1) within its row.
        """
        ranks = np.linspace(0.0, 1.0, knots)
        return self._kept.array(
            "row_knots",
            self._reader.pair(expert),
            lambda: np.concatenate([magnitudes_at(tau, ranks) for tau in self._task_rows(expert)]),
            knots,
        )

    def rank_knots(self, expert: int, knots: int = RANK_KNOTS) -> Float32Array:
        """Return the few ``row_knots`` by which masks find the rank of a magnitude.

        Returns:
            (rows, knots) float32, ascending; ties share the middle of their ranks.
        """
        ranks = np.linspace(0.0, 1.0, knots)
        return self._kept.array(
            "rank_knots",
            self._reader.pair(expert),
            lambda: centred_ties(magnitudes_at(self.row_knots(expert), ranks)),
            knots,
        )

    def row_magnitudes(self, expert: int) -> RowMagnitudes:
        """Return the magnitudes of each row of one expert's task vector."""
        return self._kept.record(
            "row_magnitudes",
            self._reader.pair(expert),
            RowMagnitudes,
            lambda: RowMagnitudes.of(self._task_rows(expert), self.rows, self.columns),
        )

    def row_divergence(self, expert: int) -> FloatArray:
        """Compute KL(softmax(expert row) ‖ softmax(base row)) in nats, (rows,) float64.

        Where there is no base it counts as zero.
        """
        return self._kept.array(
            "row_divergence",
            self._reader.pair(expert),
            lambda: np.concatenate(
                [
                    row_divergence(theta, theta_0)
                    for theta_0, theta in self._reader.base_and_expert_rows(expert)
                ]
            ),
        )

    def importance(self, expert: int) -> MagnitudeHistogram:
        """Return the histogram of |τ| times its row's divergence (``row_divergence``)."""
        return self._kept.record(
            "importance",
            self._reader.pair(expert),
            MagnitudeHistogram,
            lambda: MagnitudeHistogram.of(self._importance(expert)),
        )

    def importance_quantiles(self, expert: int, quantiles: Sequence[float]) -> FloatArray:
        """Find quantiles of |τ| times its row's divergence, float64, one per quantile asked for."""
        histogram = self.importance(expert)
        return np.array([histogram.quantile(q) for q in quantiles])

    @property
    def model_gram(self) -> FloatArray:
        """Gram matrix of the models themselves: the base first (if any), then the experts."""
        return self._kept.array(
            "model_gram",
            self._reader.everyone,
            lambda: gram_of_tiles(self._reader.models(), self.n_models),
        )

    @property
    def task_gram(self) -> FloatArray:
        """Gram matrix of the task vectors, (k, k) float64."""
        return self._kept.array(
            "task_gram",
            self._reader.everyone,
            lambda: gram_of_tiles(self._reader.task_vectors(), self.n_experts),
        )

    @property
    def row_gram(self) -> FloatArray:
        """Gram matrix of the models in every row, (rows, k + 1, k + 1); the base first (if any)."""
        return self._kept.array(
            "row_gram",
            self._reader.everyone,
            lambda: np.concatenate([gram_of_rows(tile) for tile in self._reader.model_rows()]),
        )

    @property
    def row_task_gram(self) -> FloatArray:
        """Gram matrix of the task vectors in every row, (rows, k, k) float64."""
        return self._kept.array(
            "row_task_gram",
            self._reader.everyone,
            lambda: np.concatenate([gram_of_rows(tile) for tile in self._reader.task_rows()]),
        )

    @property
    def column_task_gram(self) -> FloatArray:
        """Gram matrix of the task vectors in every column, (columns, k, k) float64."""
        return self._kept.array(
            "column_task_gram",
            self._reader.everyone,
            lambda: gram_of_columns(self._reader.task_rows(), self.n_experts, self.columns),
        )

    @property
    def variance(self) -> VarianceHistogram:
        """Histogram of the variance across experts, element by element."""
        return self._kept.record(
            "variance",
            self._reader.everyone,
            VarianceHistogram,
            lambda: VarianceHistogram.of(self._reader.task_vectors(), self.n_experts),
        )

    @property
    def conflict(self) -> MagnitudeHistogram:
        """Histogram of Ω = Σ_{i≠j} |τ_i||τ_j|, element by element."""
        return self._kept.record(
            "conflict",
            self._reader.everyone,
            MagnitudeHistogram,
            lambda: MagnitudeHistogram.of(conflict(tile) for tile in self._reader.task_vectors()),
        )

    def activity(self, epsilon: float) -> NDArray[np.int64]:
        """Count elements by the set of experts that change them by more than ``epsilon``.

        Returns:
            (2**k,) int64; bit i of the position is set iff |τ_i| > ``epsilon``.
        """
        return self._kept.array(
            "activity",
            self._reader.everyone,
            lambda: activity_counts(self._reader.task_vectors(), self.n_experts, epsilon),
            epsilon,
        )

    def signs(self, density: float) -> SignCounts:
        """Count where experts pull an element in opposite directions.

        Args:
            density: Share of each expert's largest magnitudes that count as changes, in (0, 1].
        """
        experts = range(self.n_experts)
        least = [self.magnitudes(i).threshold(density) if density < 1 else 0.0 for i in experts]
        return self._kept.record(
            "signs",
            self._reader.everyone,
            SignCounts,
            lambda: SignCounts.of(self._reader.task_vectors(), least),
            density,
        )

    def scores(self, clip: float) -> ScoreStatistics:
        """Measure the scores of parameter competition (PCB).

        Args:
            clip: Share of the magnitudes clipped at either end, in [0, 0.5).
        """
        histograms = [self.magnitudes(i) for i in range(self.n_experts)]
        return self._scores("scores", *clips(histograms, clip), clip)

    def scores_within(self, low: Sequence[float], high: Sequence[float]) -> ScoreStatistics:
        """Measure the scores of parameter competition with clips from elsewhere.

        Args:
            low: Per expert, where its magnitudes are clipped from below.
            high: Per expert, where they are clipped from above.
        """
        return self._scores("scores_within", low, high, low, high)

    def model_scores(self, clip: float) -> ScoreStatistics:
        """Measure the scores over all tensors of the model, clipped by the model's magnitudes."""
        return self._model.scores(clip)

    def column_scores(self) -> FloatArray:
        """Compare the columns of each expert with the base's (WIDEN).

        Returns:
            (2, k, columns): first |‖θ_i‖ − ‖θ0‖| per column, then 1 − cos(θ_i, θ0). A column of a
            one-dimensional tensor is an element, which has no direction: (1, k, n), |τ_i|.
        """
        return self._kept.array("column_scores", self._reader.everyone, self._column_scores)

    def row_scores(self) -> FloatArray:
        """Compare the rows of each expert with the base's; (2, k, rows), see ``column_scores``."""
        return self._kept.array(
            "row_scores",
            self._reader.everyone,
            lambda: row_scores(self._reader.model_rows(), self.n_experts),
        )

    def _column_scores(self) -> FloatArray:
        if len(self.shape) < 2:
            changes = [np.abs(tile) for tile in self._reader.task_vectors()]
            return np.concatenate(changes, axis=1, dtype=np.float64)[None]
        return column_scores(self._reader.model_rows(), self.n_experts, self.columns)

    def _scores(
        self, name: str, low: Sequence[float], high: Sequence[float], *parameters: object
    ) -> ScoreStatistics:
        return self._kept.record(
            name,
            self._reader.everyone,
            ScoreStatistics,
            lambda: ScoreStatistics.of(self._reader.task_vectors(), low, high),
            *parameters,
        )

    def _task_rows(self, expert: int) -> Iterator[Float32Array]:
        """Read whole rows of one task vector; yields (r, columns)."""
        for theta_0, theta in self._reader.base_and_expert_rows(expert):
            yield theta - theta_0

    def _importance(self, expert: int) -> Iterator[Float32Array]:
        divergence, start = self.row_divergence(expert), 0
        for theta_0, theta in self._reader.base_and_expert_rows(expert):
            scale = divergence[start : start + len(theta), None].astype(np.float32)
            start += len(theta)
            yield ((theta - theta_0) * scale).reshape(-1)

    def _masked(self, expert: int, key: int) -> MaskedSums:
        """Keep the last stream of each expert in memory only: a search may draw very many."""
        if self._last_masked.get(expert, (None,))[0] != key:
            sums = MaskedSums.of(self._reader.task_vector(expert), key, self.n)
            self._last_masked[expert] = (key, sums)
        return self._last_masked[expert][1]
