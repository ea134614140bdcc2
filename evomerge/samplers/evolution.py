"""CMA-ES by the `cma` package, with every random number named."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evomerge.samplers.unit_cube import FloatArray
from evomerge.seeds import seed_for

__all__ = ["Evolution", "Told"]


@dataclass(frozen=True)
class Told:
    """One result.

    Attributes:
        point: (dimension,), where it is.
        loss: Smaller is better; ``None`` if it failed.
        foreign: Whether somebody else chose the point.
    """

    point: FloatArray
    loss: float | None
    foreign: bool


@dataclass
class _NamedNormal:
    """The normal distribution of one draw; `cma` would use the global one."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __call__(self, *shape: int) -> FloatArray:
        return self.rng.standard_normal(shape)


class Evolution:
    """A CMA-ES on the unit cube.

    Its state is a function of the arguments and of what was told, in that order; points do not
    depend on each other.

    Args:
        start: (dimension,), first mean.
        sigma0: First standard deviation along every axis.
        popsize: Results per generation; ``None`` is the literature's 4 + 3 ln(dimension).
        min_spreads: (dimension,), standard deviations that stay at least this large.
        seed: The study's seed.
    """

    def __init__(
        self,
        start: FloatArray,
        *,
        sigma0: float,
        popsize: int | None,
        min_spreads: FloatArray,
        seed: int,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no matplotlib
            import cma  # takes a second

        self.generation = 0
        self._seed = seed
        self._normal = _NamedNormal()
        options: dict[str, object] = {
            "bounds": [0, 1],
            "CMA_mirrors": 0,  # would couple the points of a small population
            "minstd": min_spreads,
            "randn": self._normal,
            "seed": float("nan"),  # leave numpy's global generator alone
            "verbose": -9,
            "verb_log": 0,
        }
        if popsize is not None:
            options["popsize"] = popsize
        self._es = cma.CMAEvolutionStrategy(start, sigma0, options)
        self.popsize = int(self._es.popsize)
        self._open()

    def point(self, number: int) -> FloatArray:
        """Draw the point of one trial from the current distribution: (dimension,), in (0, 1)."""
        return self._draw("ask", number)

    def tell(self, results: Sequence[Told]) -> None:
        """End the generation.

        Failed points rank last. If all failed there is nothing to learn, and the distribution
        stays. Foreign points far off the distribution are taken as nearer ones in their
        direction.

        Args:
            results: ``popsize`` of them.
        """
        losses = [r.loss for r in results if r.loss is not None]
        if losses:
            worst = max(losses) + 1.0  # only ranks count
            self._es.tell(
                [r.point for r in results],
                [worst if r.loss is None else r.loss for r in results],
                check_points=[i for i, r in enumerate(results) if r.foreign],
            )
        self.generation += 1
        self._open()

    def _open(self) -> None:
        """Settle what `cma` does at the first ask, lest it depend on which trial asks first."""
        self._draw("open", self.generation)

    def _draw(self, *label: str | int) -> FloatArray:
        self._normal.rng = np.random.default_rng(seed_for(self._seed, *label))
        return np.asarray(self._es.ask(1)[0], dtype=np.float64)
