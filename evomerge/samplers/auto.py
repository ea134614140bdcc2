"""The rule behind ``sampler: auto``.

Slopes come first: on real searches of the embedded models with 27 to 168 genes (``python -m
tests.benchmarks.searches``), ``slopes`` needed a fifth of the evaluations of a CMA-ES on a weighted
sum, or less, to end where that ended. Where some genes have none (densities, methods), up to a
third of the budget along slopes leads near the front, and a sampler without slopes goes on with all
genes: ``map`` with two or three objectives. The rest follows a comparison of all samplers without
slopes on landscapes fitted to real evaluations of merges (``python -m
tests.benchmarks.landscapes``), with 60 to 300 trials. From 18 genes on, ``catcma`` is best or close
to it for one objective and where there are categories, and ``map`` for two or three objectives over
numbers; a Gaussian process wins where genes and trials are few. Four objectives and more are not in
that comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from optuna.distributions import CategoricalDistribution

from evomerge.samplers.kinds import SearchProblem

__all__ = ["SamplerChoice", "choose"]

# A Gaussian process learns most per trial while genes are few, but its asks grow with trials: half
# a second at this limit, which is what a fast trial takes.
_GP_TRIALS = 150
_FEW_GENES = 10  # between the 3 where model-based samplers win and the 18 where they lose
_NSGA3_OBJECTIVES = 4  # from here on, most trials are on the front
_BUDGET_PER_CLIMB = 6  # evaluations, of which a trial with a short climb takes up to two: a third
_FEW_TRIALS = 40  # up to here climbs alone see more than what would come after them


@dataclass(frozen=True)
class SamplerChoice:
    """What ``auto`` takes.

    Attributes:
        name: The sampler.
        reason: For people, e.g. "100 trials of 12 genes".
        climbs: How many trials along slopes come before it.
    """

    name: str
    reason: str
    climbs: int = 0


def choose(problem: SearchProblem) -> SamplerChoice:
    """Choose a sampler.

    More than few genes, most of them and all objectives with slopes, and no constraints: slopes; if
    some genes have none and trials are not few, some trials along slopes, then map for two or three
    objectives, or else what follows. Without slopes the first match wins: nothing to vary: random;
    objectives that are summed: catcma; 4 objectives or more: nsga3; few genes: gp, or tpe where
    trials are too many for it; several objectives over numbers: map; otherwise catcma.

    Args:
        problem: The search.
    """
    genes, sloped = problem.space.searched, problem.sloped_objectives
    n_genes, n_sloped = len(genes), len(problem.sloped & genes.keys())
    plain = _without_slopes(problem)
    has_slopes = bool(sloped) and all(sloped) and 2 * n_sloped > n_genes > _FEW_GENES
    if not has_slopes or problem.constrained:
        return plain
    if n_sloped == n_genes or problem.n_trials <= _FEW_TRIALS:
        reason = f"{n_sloped} of {n_genes} genes and all objectives have slopes"
        return SamplerChoice("slopes", reason)
    climbs = problem.n_trials // _BUDGET_PER_CLIMB
    is_traded_off = 1 < problem.n_objectives < _NSGA3_OBJECTIVES and not problem.preference
    reason = f"after {climbs} trials along the slopes of {n_sloped} of {n_genes} genes"
    return SamplerChoice("map" if is_traded_off else plain.name, reason, climbs)


def _without_slopes(problem: SearchProblem) -> SamplerChoice:
    genes, n_objectives, n_trials = problem.space.searched, problem.n_objectives, problem.n_trials
    n_genes = len(genes)
    size = f"{n_trials} trials of {n_genes} genes"
    if n_genes == 0:
        return SamplerChoice("random", "no gene can vary")
    if problem.preference:
        return SamplerChoice("catcma", f"{size}, {n_objectives} objectives as one sum")
    if n_objectives >= _NSGA3_OBJECTIVES:
        return SamplerChoice("nsga3", f"{n_objectives} objectives")
    if n_genes <= _FEW_GENES:
        is_short = n_trials <= _GP_TRIALS
        kind = "few enough for" if is_short else "few genes, too many trials for"
        return SamplerChoice("gp" if is_short else "tpe", f"{size}: {kind} a Gaussian process")
    has_categories = any(isinstance(d, CategoricalDistribution) for d in genes.values())
    if n_objectives > 1 and not has_categories:
        return SamplerChoice("map", f"{size}, {n_objectives} objectives, numbers only")
    return SamplerChoice("catcma", f"{size}, {'categories' if has_categories else 'one objective'}")
