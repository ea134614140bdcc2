"""mergekit-evolve's way to search, re-created: CMA-ES on one weighted sum."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

from evomerge.errors import SpaceError
from evomerge.samplers import GeneSpace
from evomerge.seeds import seed_for
from evomerge.space.protocol import Params

__all__ = ["PEER", "evolve"]

PEER = "mergekit-evolve"

_SEARCHED = ("coefficient", "density")


def evolve(genes: GeneSpace, score: Callable[[Params], float], trials: int, seed: int) -> None:
    """Search as mergekit-evolve is set up.

    Every coefficient starts at 1/n experts and every density at 1, sigma 1/6, no bounds: negative
    genes are folded by ``abs`` and clamped to the range. All of a generation is scored before the
    next one is asked. It has genes for coefficients and densities only; others are neutral.

    Args:
        genes: What may vary.
        score: Returns the weighted sum of the objectives; larger is better.
        trials: After so many no further generation begins.
        seed: Of the search.

    Raises:
        SpaceError: It has no genes for this space.
    """
    searched = [name for name in genes.distributions if name.split(".")[0] in _SEARCHED]
    if not searched:
        raise SpaceError(f"expected coefficients or densities, got {', '.join(genes.defaults)}")
    n_experts = len({name.rsplit(".", 1)[-1] for name in searched})
    start = [1.0 / n_experts if n.startswith("coefficient") else 1.0 for n in searched]
    normal = np.random.default_rng(seed_for(seed, "evolve"))
    options = {
        "seed": float("nan"),
        "randn": lambda *shape: normal.standard_normal(shape),
        "verbose": -9,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no matplotlib
        import cma
    strategy = cma.CMAEvolutionStrategy(start, 1 / 6, options)
    n_scored = 0
    while n_scored < trials:
        points = strategy.ask()
        strategy.tell(points, [-score(_folded(point, searched, genes)) for point in points])
        n_scored += len(points)


def _folded(point: NDArray[np.float64], names: list[str], genes: GeneSpace) -> Params:
    params = dict(genes.defaults)
    for name, value in zip(names, np.abs(point), strict=True):
        distribution = genes.distributions[name]
        assert isinstance(distribution, FloatDistribution)
        params[name] = float(np.clip(value, distribution.low, distribution.high))
    return params
