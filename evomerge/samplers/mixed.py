"""CMA-ES with steps and categories by the `cmaes` package, with every random number named."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.samplers.cmaes_internals import (
    CatCMAwM,
    COMOCatCMAwM,
    centre_of,
    distance,
    drawn_numbers,
    origin_of,
)
from evomerge.samplers.gene_space import GeneSpace, GeneValue
from evomerge.samplers.mixed_genes import MixedGenes, MixedPoint
from evomerge.samplers.replay import Told
from evomerge.samplers.results import Result
from evomerge.samplers.scalarise import Scalariser
from evomerge.seeds import seed_for

__all__ = ["CatEvolution", "ComoEvolution", "default_popsize"]

_PATIENCE = 2  # a generation ends without missing centres after this many times its size


class CatEvolution:
    """CatCMA with margin; see ``replay.Generations``. Several objectives are scalarised.

    Args:
        space: The genes.
        sigma0: First standard deviation, as a share of every numeric gene's range.
        popsize: Results per generation.
        seed: The study's seed.

    Source:
        Hamano et al. 2025, "Marginal probability-based integer handling for CMA-ES tackling
        single- and multi-objective mixed-integer black-box optimization", arXiv:2504.07884.
    """

    def __init__(self, space: GeneSpace, *, sigma0: float, popsize: int, seed: int) -> None:
        self._genes, self._popsize, self._seed = MixedGenes(space), popsize, seed
        mean = self._genes.encode(space.defaults).numbers
        self._search = _catcma(self._genes, mean, sigma0=sigma0, popsize=popsize)
        self._scalariser = Scalariser(seed)
        self.generation = 0

    def draw(self, number: int, slot: int = 0) -> MixedPoint:
        """Draw the point of one trial from the current distribution."""
        self._search.reseed_rng(_narrow(self._seed, "ask", number))
        return _ours(self._search.ask())

    def decode(self, point: MixedPoint) -> dict[str, GeneValue]:
        """Return a value for every gene that can vary."""
        return self._genes.decode(point)

    def encode(self, result: Result) -> MixedPoint:
        """Return the point of a trial that somebody else chose."""
        return self._genes.encode(result.params)

    def ending(self, waiting: Sequence[Told[MixedPoint]]) -> Sequence[Told[MixedPoint]]:
        """Choose the first ``popsize`` results, whoever chose them, as soon as there are."""
        return waiting[: self._popsize] if len(waiting) >= self._popsize else ()

    def tell(self, results: Sequence[Told[MixedPoint]]) -> None:
        """End the generation.

        Only the order of the losses is told: the size of a score must not decide how hard a
        bound is, and equal scores would leave that undefined. If all failed, the distribution
        stays. Foreign points far off the distribution are taken as nearer ones.
        """
        losses = self._scalariser.losses([r.result for r in results], self.generation)
        self.generation += 1
        if losses is None:
            return
        ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable").tolist()
        points = [self._nearer(r.point) if r.foreign else r.point for r in results]
        solutions = [CatCMAwM.Solution(*_theirs(p, self._genes.n_smooth)) for p in points]
        self._search.tell(list(zip(solutions, map(float, ranks), strict=True)))

    def _nearer(self, point: MixedPoint) -> MixedPoint:
        """Pull a foreign point to where a drawn one might lie, in its direction."""
        n = len(point.drawn)
        if n == 0:
            return point
        search = self._search
        offset = point.drawn - centre_of(search)
        reach = math.sqrt(n) + 2 * n / (n + 2)  # what `cma` allows an injected point
        drawn = centre_of(search) + min(1.0, reach / max(distance(search, offset), reach)) * offset
        return MixedPoint(point.numbers, point.choices, drawn)


class ComoEvolution:
    """Several CatCMA, the kernels, that share a front of two objectives; see ``Generations``.

    A generation moves one kernel, by its draws and the centres of those that moved before. Asks
    beyond these draw from the kernel that moves. Results that come late count if the same kernel
    moves again; foreign ones are not told, since the method has no place for them.

    Args:
        space: The genes.
        sigma0: First standard deviation, as a share of every numeric gene's range.
        kernels: How many: points of the front that move.
        seed: The study's seed.

    Source:
        Hamano et al. 2025, arXiv:2504.07884; Touré et al. 2019, "Uncrowded hypervolume
        improvement: COMO-CMA-ES and the Sofomore framework", arXiv:1904.08823.
    """

    def __init__(self, space: GeneSpace, *, sigma0: float, kernels: int, seed: int) -> None:
        self._genes, self._seed = MixedGenes(space), seed
        ranges = self._genes.ranges
        rng = np.random.default_rng(seed_for(seed, "kernels"))
        elsewhere = rng.random((kernels - 1, len(ranges))) * ranges
        self._popsize = default_popsize(self._genes.n_genes)
        self._como = COMOCatCMAwM(
            kernels=[
                _catcma(self._genes, mean, sigma0=sigma0, popsize=self._popsize)
                for mean in (self._genes.encode(space.defaults).numbers, *elsewhere)
            ],
            x_space=[[0.0, 1.0]],  # wanted, but looked at only where there are no kernels
            seed=_narrow(seed, "como"),
        )
        self._worst = np.full(2, -np.inf)
        self._planned = self._plan()
        self.generation = 0

    def draw(self, number: int, slot: int) -> MixedPoint:
        """Take the next point of the generation, or draw one more of the kernel that moves."""
        if slot < len(self._planned):
            return self._planned[slot]
        kernel = self._como.current_kernel
        kernel.reseed_rng(_narrow(self._seed, "ask", number))
        return _ours(kernel.ask(), kernel=self._como.current_kernel_id)

    def decode(self, point: MixedPoint) -> dict[str, GeneValue]:
        """Return a value for every gene that can vary."""
        return self._genes.decode(point)

    def encode(self, result: Result) -> MixedPoint:
        """Return the point of a trial that somebody else chose."""
        return self._genes.encode(result.params)

    def ending(self, waiting: Sequence[Told[MixedPoint]]) -> Sequence[Told[MixedPoint]]:
        """Choose all that wait, once the kernel can move.

        It can with a population of its own and the centres of the others; a centre whose trial
        never ends is waited for no longer than two whole generations would take.
        """
        n_drawn = len(self._drawn(waiting))
        missing = [p for p in self._centres() if _place(p, waiting) is None]
        overdue = n_drawn >= _PATIENCE * len(self._planned)
        return waiting if n_drawn >= self._popsize and (not missing or overdue) else ()

    def tell(self, results: Sequence[Told[MixedPoint]]) -> None:
        """End the generation: move the kernel.

        Infeasible, pruned and failed points count as worse than any seen, in both objectives.
        """
        self._como.reseed_rng(_narrow(self._seed, "open", self.generation))
        values = self._values([told.result for told in results])
        for centre in self._centres():
            place = _place(centre, results)
            self._tell(centre, self._bad() if place is None else values[place])
        for place in self._drawn(results)[: self._popsize]:
            self._tell(results[place].point, values[place])
        self.generation += 1
        self._planned = self._plan()

    def _tell(self, point: MixedPoint, values: FloatArray) -> None:
        parts = _theirs(point, self._genes.n_smooth)
        self._como.tell(
            (COMOCatCMAwM.Solution(*parts, point.kernel, point.centre), values.tolist())
        )

    def _plan(self) -> list[MixedPoint]:
        solutions = list(self._como.ask_iter())
        return [_ours(s, *origin_of(s)) for s in solutions]

    def _centres(self) -> list[MixedPoint]:
        return [point for point in self._planned if point.centre is not None]

    def _drawn(self, results: Sequence[Told[MixedPoint]]) -> list[int]:
        """List the places of results that the kernel that moves drew."""
        kernel = self._como.current_kernel_id
        return [i for i, t in enumerate(results) if not t.foreign and t.point.kernel == kernel]

    def _values(self, results: Sequence[Result]) -> FloatArray:
        """Return the two losses of each result, (n, 2)."""
        scored = np.array([r.losses for r in results if r.losses is not None]).reshape(-1, 2)
        self._worst = np.maximum(self._worst, scored.max(axis=0, initial=-np.inf))
        bad = [self._bad() + r.violation for r in results]
        rows = zip(results, bad, strict=True)
        return np.array([b if r.losses is None or r.violation > 0 else r.losses for r, b in rows])

    def _bad(self) -> FloatArray:
        return np.where(np.isfinite(self._worst), self._worst, 0.0) + 1.0


def default_popsize(n_genes: int) -> int:
    """Return the population size of the literature: 4 + 3 ln(genes), rounded down."""
    return 4 + math.floor(3 * math.log(n_genes))


def _catcma(genes: MixedGenes, mean: FloatArray, *, sigma0: float, popsize: int) -> CatCMAwM:
    has_numbers = len(mean) > 0
    return CatCMAwM(
        x_space=[[0.0, 1.0]] * genes.n_smooth or None,
        z_space=[list(range(n)) for n in genes.n_steps] or None,
        c_space=genes.n_choices or None,
        mean=mean.copy() if has_numbers else None,
        cov=np.diag((sigma0 * genes.ranges) ** 2) if has_numbers else None,
        population_size=popsize,
    )


def _ours(
    solution: CatCMAwM.Solution | COMOCatCMAwM.Solution,
    kernel: int | None = None,
    centre: int | None = None,
) -> MixedPoint:
    parts = [part for part in (solution.x, solution.z) if part is not None]
    numbers = np.concatenate(parts) if parts else np.empty(0)
    choices = np.empty((0, 0), dtype=bool) if solution.c is None else solution.c
    drawn = drawn_numbers(solution)
    return MixedPoint(
        numbers, choices, np.array(numbers if drawn is None else drawn), kernel, centre
    )


def _theirs(point: MixedPoint, n_smooth: int) -> tuple[FloatArray | None, ...]:
    """Return ``x``, ``z``, ``c`` and what was drawn; nothing for kinds that the genes lack."""
    smooth, steps = point.numbers[:n_smooth], point.numbers[n_smooth:]
    parts = (smooth, steps, point.choices, point.drawn)
    return tuple(np.array(part) if len(part) else None for part in parts)


def _place(point: MixedPoint, results: Sequence[Told[MixedPoint]]) -> int | None:
    return next((i for i, told in enumerate(results) if told.point is point), None)


def _narrow(seed: int, *labels: str | int) -> int:
    return seed_for(seed, *labels) % 2**32
