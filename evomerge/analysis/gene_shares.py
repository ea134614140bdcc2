"""Which genes a study's scores depend on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.analysis.front import complete, oriented
from evomerge.analysis.once import once
from evomerge.arrays import FloatArray
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["GeneShares", "gene_shares", "trials_with_genes"]

_FEWEST = 20  # trials, of which a share says something
_MOST = 10_000  # trials of which all params are read: a share is known to 0.01 then
_MOST_GROUPS, _PER_GROUP = 5, 8
_SHUFFLES = 19  # of which the largest is passed by chance in 5 % of studies


@dataclass(frozen=True)
class GeneShares:
    """How much of the scores follows from each gene by itself.

    Attributes:
        genes: Names, the one with the largest share first.
        shares: Per gene one per objective, in [0, 1].
        chance: The largest share of any gene that shuffled scores come to.
        n_trials: Trials that were looked at.
    """

    genes: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    chance: float
    n_trials: int

    @property
    def rows(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Genes with their shares."""
        return tuple(zip(self.genes, self.shares, strict=True))


def gene_shares(study: StudyRecord) -> GeneShares | None:
    """Split the variance of the scores by each gene: ε², the correlation ratio without its bias.

    At most 10,000 trials are looked at. They fall into groups by the value of a gene: choices as
    they are, numbers into at most five groups of equal size, trials without the gene into one of
    their own. A gene that matters only together with another one shows no share; where the sampler
    has settled on a value, neither does its gene.

    Args:
        study: As it stands.

    Returns:
        ``None`` where fewer than 20 complete trials have genes.

    Source:
        Kelley 1935, "An unbiased correlation ratio measure"; the groups' share of the variance is
        an estimate of the first-order Sobol index.
    """
    trials = trials_with_genes(study)
    if len(trials) < _FEWEST:
        return None
    scores = _standardised(oriented(trials, study.objectives))
    random = np.random.default_rng(0)
    shuffled = np.hstack([random.permutation(scores) for _ in range(_SHUFFLES)])
    found, chance = {}, 0.0
    for gene in dict.fromkeys(name for trial in trials for name in trial.params):
        groups = _groups([trial.params.get(gene) for trial in trials])
        found[gene] = tuple(_shares(groups, scores).tolist())
        chance = max(chance, float(_shares(groups, shuffled).max()))
    genes = sorted(found, key=lambda gene: -max(found[gene]))
    return GeneShares(tuple(genes), tuple(found[g] for g in genes), chance, len(trials))


@once
def trials_with_genes(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """List the complete trials with genes; of more than 10,000 an even choice."""
    trials = complete(study)
    return tuple(t for t in trials[:: max(1, math.ceil(len(trials) / _MOST))] if t.params)


def _standardised(scores: FloatArray) -> FloatArray:
    """Columns of mean 0 and variance 1; a constant one is 0."""
    spread = scores.std(axis=0)
    standardised: FloatArray = (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return standardised


def _groups(values: Sequence[float | int | str | None]) -> NDArray[np.int64]:
    """Number the groups (n,) that values fall into."""
    is_number = [isinstance(v, (int, float)) for v in values]
    numbers = np.array([v for v, is_it in zip(values, is_number, strict=True) if is_it], float)
    n_groups = min(_MOST_GROUPS, len(numbers) // _PER_GROUP)
    keys: dict[object, int] = {}
    if len(np.unique(numbers)) > _MOST_GROUPS and n_groups > 1:
        cuts = np.unique(np.quantile(numbers, np.arange(1, n_groups) / n_groups))
        grouped = iter(np.searchsorted(cuts, numbers, side="right").tolist())
        values = [next(grouped) if i else v for i, v in zip(is_number, values, strict=True)]
    return np.array([keys.setdefault(value, len(keys)) for value in values], dtype=np.int64)


def _shares(groups: NDArray[np.int64], scores: FloatArray) -> FloatArray:
    """Share of the variance of each standardised column (n, m) that lies between groups (n,)."""
    n, k = len(groups), int(groups.max()) + 1
    if not 1 < k < n:
        return np.zeros(scores.shape[1])
    member = np.eye(k)[groups]
    between = ((member.T @ scores) ** 2 / member.sum(axis=0)[:, None]).sum(axis=0) / n
    unbiased: FloatArray = 1 - (1 - between) * (n - 1) / (n - k)
    return np.where(scores.any(axis=0), np.clip(unbiased, 0.0, 1.0), 0.0)
