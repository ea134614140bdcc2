"""Samplers: which params to try next, given the trials in an Optuna study.

Members:
    gene_space: ``GeneSpace``, all genes of a search space with a neutral value each.
    registry: ``sampler_names``, ``resolve_sampler`` and ``build_sampler``, from a name in YAML to a
        sampler.
    auto: ``choose``, the rule behind ``sampler: auto``.
    kinds: ``SamplerKind``, what a sampler declares; ``SearchProblem``, what it is built for.
    in_optuna: Optuna's own samplers: random, tpe, gp, nsga2, nsga3.
    pycma, evolution: CMA-ES.
    catcma, mixed, mixed_genes: CMA-ES with categories and steps, one or two objectives.
    cmaes_internals: what is used of cmaes, public or not.
    amortised, surrogate, genetic, odds: ``map``, a search on quadratic models of the objectives.
    slopes, chains, preferences: ``slopes``, trials that climb on along the objectives' slopes.
    slopes_first: ``SlopesFirst``, another sampler after a few trials of ``slopes``.
    niches: ``m2n2``, crossover of parents that are good at different items.
    greedy_soup: averages of the best seeds, then one gene at a time.
    wrapped, view: make an Optuna sampler work where some genes are inactive.
    joint, results: the same for our own samplers.
    learned: ``learned_values``, what a finished trial taught, in full or in part.
    replay: generations as a function of the store.
    unit_cube, scalarise: genes as points of the unit cube; several objectives as one.

Every sampler here keeps these promises: its next ask is a function of the trials in the store,
the seed and the trial number; it proposes a value for every gene, so that a search space may
suggest any part of them; it never sees a trial whose params are not genes of the space; failed
trials never get a made-up score; infeasible trials rank behind feasible ones.

A new sampler is a ``SamplerKind`` in a file here, listed in ``registry``; in another package, the
same object under the entry point group ``evomerge.samplers``.
"""

from evomerge.samplers.auto import choose
from evomerge.samplers.gene_space import GeneSpace
from evomerge.samplers.kinds import SamplerKind, SearchProblem
from evomerge.samplers.registry import build_sampler, resolve_sampler, sampler_names
from evomerge.samplers.slopes_first import SlopesFirst
from evomerge.samplers.wrapped import InSpace

__all__ = [
    "GeneSpace",
    "InSpace",
    "SamplerKind",
    "SearchProblem",
    "SlopesFirst",
    "build_sampler",
    "choose",
    "resolve_sampler",
    "sampler_names",
]
