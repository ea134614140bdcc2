"""The rule behind ``sampler: auto``.

Slopes come first: on real searches of the embedded models (``python -m tests.benchmarks.searches``)
with 27 and with 168 genes, ``slopes`` needed a fifth of the evaluations of a CMA-ES on a weighted
sum, or less, to end where that ended. The rest follows a comparison of all samplers without slopes
on landscapes fitted to real evaluations of merges (``python -m tests.benchmarks.landscapes``), with
60 to 300 trials. From 18 genes on, ``catcma`` is best or close to it for one objective and where
there are categories, and ``map`` for two or three objectives over numbers; a Gaussian process wins
where genes and trials are few. Four objectives and more are not in that comparison.
"""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution

from evomerge.samplers.gene_space import GeneSpace
from evomerge.samplers.kinds import SearchProblem

__all__ = ["choose"]

# A Gaussian process learns most per trial while genes are few, but its asks grow with trials: half
# a second at this limit, which is what a fast trial takes.
_GP_TRIALS = 150
_FEW_GENES = 10  # between the 3 where model-based samplers win and the 18 where they lose
_NSGA3_OBJECTIVES = 4  # from here on, most trials are on the front


def choose(problem: SearchProblem) -> tuple[str, str]:
    """Choose a sampler.

    The rule, first match wins: more than few genes, most of them and all objectives with slopes,
    and no constraints: slopes; nothing to vary: random; objectives that are summed: catcma; 4
    objectives or more: nsga3; few genes: gp, or tpe where trials are too many for it; several
    objectives over numbers: map; otherwise catcma.

    Args:
        problem: The search.

    Returns:
        The sampler's name, and the reason for people, e.g. "100 trials of 12 genes".
    """
    space, sloped = problem.space, problem.sloped_objectives
    n_genes, n_sloped = len(space.searched), len(problem.sloped & space.searched.keys())
    has_slopes = bool(sloped) and all(sloped) and 2 * n_sloped > n_genes
    if has_slopes and n_genes > _FEW_GENES and not problem.constrained:
        return "slopes", f"{n_sloped} of {n_genes} genes and all objectives have slopes"
    if problem.preference and space.searched:
        n_objectives = problem.n_objectives
        return "catcma", f"{problem.n_trials} trials of {n_genes} genes, {n_objectives} as one sum"
    return _without_slopes(space, problem.n_objectives, problem.n_trials)


def _without_slopes(space: GeneSpace, n_objectives: int, n_trials: int) -> tuple[str, str]:
    n_genes = len(space.searched)
    size = f"{n_trials} trials of {n_genes} genes"
    if n_genes == 0:
        return "random", "no gene can vary"
    if n_objectives >= _NSGA3_OBJECTIVES:
        return "nsga3", f"{n_objectives} objectives"
    if n_genes <= _FEW_GENES and n_trials <= _GP_TRIALS:
        return "gp", f"{size}: few enough for a Gaussian process"
    if n_genes <= _FEW_GENES:
        return "tpe", f"{size}: few genes, too many trials for a Gaussian process"
    has_categories = any(isinstance(d, CategoricalDistribution) for d in space.searched.values())
    if n_objectives > 1 and not has_categories:
        return "map", f"{size}, {n_objectives} objectives, numbers only"
    return "catcma", f"{size}, {'categories' if has_categories else 'one objective'}"
