"""The rule behind ``sampler: auto``."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution

from evomerge.samplers.gene_space import GeneSpace

__all__ = ["choose"]

# A Gaussian process finds most per trial, but its asks grow with trials and genes: half a second
# at these limits, which is what a fast trial takes.
_GP_TRIALS = 150
_GP_GENES = 20
_CMA_TRIALS_PER_GENE = 10  # from here on it beats TPE on smooth functions; at 7 they tie
_NSGA_OBJECTIVES = 4  # from here on, most trials are on the front


def choose(space: GeneSpace, *, n_objectives: int, n_trials: int) -> tuple[str, str]:
    """Choose a sampler.

    The rule, first match wins: nothing to vary: random; 4 objectives or more: nsga3; a small
    budget of few genes: gp; one objective and a budget that suits the genes: pycma if all are
    numbers, catcma if some are categories; otherwise tpe.

    Args:
        space: The genes.
        n_objectives: Objectives of the study.
        n_trials: Trials in total.

    Returns:
        The sampler's name, and the reason for people, e.g. "100 trials of 12 genes".
    """
    genes = space.searched
    size = f"{n_trials} trials of {len(genes)} genes"
    if not genes:
        return "random", "no gene can vary"
    if n_objectives >= _NSGA_OBJECTIVES:
        return "nsga3", f"{n_objectives} objectives"
    if n_trials <= _GP_TRIALS and len(genes) <= _GP_GENES:
        return "gp", f"{size}: few enough for a Gaussian process"
    if n_objectives > 1:
        return "tpe", f"{size}, {n_objectives} objectives"
    if n_trials < _CMA_TRIALS_PER_GENE * len(genes):
        return "tpe", f"{size}: too few for CMA-ES"
    has_categories = any(isinstance(d, CategoricalDistribution) for d in genes.values())
    name, kinds = ("catcma", "categories") if has_categories else ("pycma", "numbers only")
    return name, f"{size}, one objective, {kinds}"
