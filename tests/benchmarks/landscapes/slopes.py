"""Slopes of a landscape as few items would show them: true ones, and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.execution.climb import Factors, Slopes
from evomerge.execution.protocol import Climb
from evomerge.seeds import seed_for
from evomerge.space.protocol import Params
from tests.benchmarks.landscapes.cases import Case
from tests.benchmarks.landscapes.landscape import FloatArray

__all__ = ["NoisySlopes"]

_AGREEMENT = 0.9  # cosine between slopes of two draws of 48 items, as on real ones
_ITEMS = 48
_STEP = 1e-3  # of finite differences, as a share of a gene's range
_SLOPED = ("coefficient", "lambda")


class NoisySlopes:
    """The slopes of what a climb makes smaller: log odds of wrong answers, or their mean share.

    Args:
        case: Whose objectives.
        seed: Of the noise, which is spread evenly over the genes.
    """

    def __init__(self, case: Case, seed: int) -> None:
        self._case, self._landscape = case, case.landscape
        self._rng = np.random.default_rng(seed_for(seed, "slopes"))
        genes = self._landscape.genes.searched
        self._widths = {
            name: gene.high - gene.low
            for name, gene in genes.items()
            if isinstance(gene, FloatDistribution) and name.startswith(_SLOPED)
        }

    @property
    def names(self) -> frozenset[str]:
        """The genes that have slopes."""
        return frozenset(self._widths)

    def sums(
        self, climb: Climb, params: Params, step: int, sums: Sequence[Factors]
    ) -> list[Slopes]:
        """Return the slopes of sums of objectives, as ``execution.climb`` asks for them."""
        rows = self._noisy(self.true(params), climb.items) / np.array([*self._widths.values()])
        found = []
        for factors in sums:
            along = dict(zip(self._widths, (np.array(factors) @ rows).tolist(), strict=True))
            n = sum(factor > 0 for factor in factors)
            found.append(Slopes((0.0,) * n, along, n * climb.items))
        return found

    def true(self, params: Params) -> FloatArray:
        """Return slopes (objectives, genes) without noise, per range of a gene."""
        moved = [
            {**params, name: float(params[name]) + _STEP * width}
            for name, width in self._widths.items()
        ]
        losses = self._losses([params, *moved])
        return np.asarray((losses[1:] - losses[0]).T / _STEP)

    def _losses(self, params: list[Params]) -> FloatArray:
        right = self._case.objectives(self._landscape.accuracies(params))
        return np.asarray(1 - right if self._case.mean else np.log((1 - right) / right))

    def _noisy(self, rows: FloatArray, n_items: int) -> FloatArray:
        ratio = (1 / _AGREEMENT - 1) * _ITEMS / n_items  # of the variances of noise and slopes
        spread = np.sqrt((rows**2).mean(axis=1, keepdims=True) * ratio)
        return np.asarray(rows + spread * self._rng.standard_normal(rows.shape))
