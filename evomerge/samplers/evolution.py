"""CMA-ES by the `cma` package, with every random number named."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.samplers.gene_space import GeneSpace, GeneValue
from evomerge.samplers.replay import Told
from evomerge.samplers.results import Result
from evomerge.samplers.scalarise import Scalariser
from evomerge.samplers.unit_cube import UnitCube
from evomerge.seeds import seed_for

__all__ = ["Evolution"]


@dataclass
class _NamedNormal:
    """The normal distribution of one draw; `cma` would use the global one."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __call__(self, *shape: int) -> FloatArray:
        return self.rng.standard_normal(shape)


class Evolution:
    """A CMA-ES on the unit cube, started at the genes' defaults; see ``replay.Generations``.

    Points do not depend on each other. Where the search has converged, it starts again at a
    random point with twice the population (IPOP).

    Args:
        space: The genes.
        sigma0: First standard deviation along every axis.
        popsize: Results per generation.
        diagonal: Whether to learn a variance per axis only, without correlations.
        restarts: How often it may start again.
        seed: The study's seed.

    Source:
        Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; restarts: Auger
        and Hansen 2005, "A restart CMA evolution strategy with increasing population size".
    """

    def __init__(
        self,
        space: GeneSpace,
        *,
        sigma0: float,
        popsize: int,
        diagonal: bool,
        restarts: int,
        seed: int,
    ) -> None:
        self._space, self._cube = space, UnitCube(space.searched)
        self._sigma0, self._diagonal, self._seed = sigma0, diagonal, seed
        self._scalariser = Scalariser(seed)
        self._normal = _NamedNormal()
        self._restarts_left = restarts
        self.generation = 0
        self.popsize = popsize
        self._start(self._cube.encode(space.defaults))

    def draw(self, number: int, slot: int = 0) -> FloatArray:
        """Draw the point of one trial from the current distribution: (axes,), in (0, 1)."""
        return self._draw("ask", number)

    def decode(self, point: FloatArray) -> dict[str, GeneValue]:
        """Return a value for every gene that can vary."""
        return self._cube.decode(point)

    def encode(self, result: Result) -> FloatArray:
        """Return the point of a trial that somebody else chose."""
        return self._cube.encode(result.params)

    def ending(self, waiting: Sequence[Told[FloatArray]]) -> Sequence[Told[FloatArray]]:
        """Choose the first ``popsize`` results, whoever chose them, as soon as there are."""
        return waiting[: self.popsize] if len(waiting) >= self.popsize else ()

    def tell(self, results: Sequence[Told[FloatArray]]) -> None:
        """End the generation.

        If all failed there is nothing to learn, and the distribution stays. Foreign points far
        off the distribution are taken as nearer ones in their direction.
        """
        losses = self._scalariser.losses([r.result for r in results], self.generation)
        self.generation += 1
        if losses is not None:
            self._es.tell(
                [r.point for r in results],
                losses,
                check_points=[i for i, r in enumerate(results) if r.foreign],
            )
            if self._restarts_left and self._es.stop():
                self._restart()
        self._open()

    def _restart(self) -> None:
        self._restarts_left -= 1
        self.popsize *= 2
        rng = np.random.default_rng(seed_for(self._seed, "restart", self.generation))
        self._start(rng.random(self._cube.dimension))

    def _start(self, mean: FloatArray) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no matplotlib
            import cma  # takes a second

        options: dict[str, object] = {
            "bounds": [0, 1],
            "CMA_diagonal": self._diagonal,
            "CMA_mirrors": 0,  # would couple the points of a small population
            "minstd": self._cube.min_spreads,
            "popsize": self.popsize,
            "randn": self._normal,
            "seed": float("nan"),  # leave numpy's global generator alone
            "signals_filename": "",  # read no options from the working directory
            "verbose": -9,
            "verb_log": 0,
        }
        self._es = cma.CMAEvolutionStrategy(mean, self._sigma0, options)
        self._open()

    def _open(self) -> None:
        """Settle what `cma` does at the first ask, lest it depend on which trial asks first."""
        self._draw("open", self.generation)

    def _draw(self, *label: str | int) -> FloatArray:
        self._normal.rng = np.random.default_rng(seed_for(self._seed, *label))
        return np.asarray(self._es.ask(1)[0], dtype=np.float64)
