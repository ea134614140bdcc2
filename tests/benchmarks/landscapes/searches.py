"""One search on a landscape: by any of our samplers, or as other tools search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from evomerge.samplers import GeneSpace, SearchProblem, build_sampler
from evomerge.seeds import seed_for
from evomerge.space.protocol import Params
from tests.benchmarks.bayes import BOTORCH, bayes, is_installed
from tests.benchmarks.evolve import PEER, evolve
from tests.benchmarks.landscapes.cases import Case
from tests.benchmarks.landscapes.landscape import FloatArray, observed

__all__ = ["OTHERS", "WHOLE_MODEL", "Log", "Progress", "new_study", "search"]

WHOLE_MODEL = "NSGA-II, whole model"
"""One coefficient per expert; a key of ``OTHERS``."""

_IN_FLIGHT = 4
_EVERY = 5  # trials between two looks


@dataclass(frozen=True)
class Progress:
    """What a search would have handed over, look by look.

    Attributes:
        trials: Evaluations so far, at each look.
        volume: ``Case.quality`` at each look: hypervolume.
        mean: And the best mean.
    """

    trials: list[int]
    volume: list[float]
    mean: list[float]


class Log:
    """Scores points with noise, and keeps both what was seen and what is true."""

    def __init__(self, case: Case, seed: int) -> None:
        self._case = case
        self._noise = np.random.default_rng(seed_for(seed, "noise"))
        self._seen: list[FloatArray] = []
        self._true: list[FloatArray] = []

    def __len__(self) -> int:
        return len(self._seen)

    def score(self, params: Params) -> FloatArray:
        """Return the objectives of one point as a study would see them; shape (n_objectives,)."""
        accuracies = self._case.landscape.accuracies([params])
        self._true.append(self._case.objectives(accuracies)[0])
        self._seen.append(self._case.objectives(observed(accuracies, self._noise))[0])
        return self._seen[-1]

    def quality(self, n: int) -> tuple[float, float]:
        """Judge the first n points by ``Case.quality``."""
        return self._case.quality(np.array(self._seen[:n]), np.array(self._true[:n]))

    def progress(self) -> Progress:
        """Look at every fifth point, and the last one."""
        n_all = len(self._seen)
        looks = [n for n in range(1, n_all + 1) if n % _EVERY == 0 or n == n_all]
        found = [self.quality(n) for n in looks]
        return Progress(looks, [v for v, _ in found], [m for _, m in found])


def search(case: Case, method: str, seed: int) -> Progress:
    """Run one search.

    Args:
        case: What is searched, and for how long.
        method: A sampler's name, or one of ``OTHERS``.
        seed: Of the sampler, the noise and the order in which results arrive.
    """
    log = Log(case, seed)
    OTHERS.get(method, _by_sampler)(case, method, seed, log)
    return log.progress()


def _by_sampler(case: Case, method: str, seed: int, log: Log) -> None:
    """As ``evomerge run`` does: the parents first, four trials in flight."""
    landscape = case.landscape
    sampler = build_sampler(
        method,
        {},
        SearchProblem(
            space=landscape.genes, n_objectives=case.n_objectives, n_trials=case.trials, seed=seed
        ),
    )
    study = new_study(sampler, case)
    for params in landscape.parents:
        study.enqueue_trial(dict(params))
    _run(study, landscape.space.suggest, case.trials, seed, log)


def _whole_model_nsga2(case: Case, method: str, seed: int, log: Log) -> None:
    """NSGA-II over whole-model coefficients, as Mergenetic searches."""
    genes = case.landscape.genes
    shared = {name: _whole_model_name(name) for name in genes.distributions}
    distributions = {shared[name]: d for name, d in genes.distributions.items()}
    defaults = {shared[name]: value for name, value in genes.defaults.items()}
    sampler = build_sampler(
        "nsga2",
        {},
        SearchProblem(
            space=GeneSpace(distributions, defaults),
            n_objectives=case.n_objectives,
            n_trials=case.trials,
            seed=seed,
        ),
    )

    def suggest(trial: Trial) -> Params:
        values = {name: _suggest(trial, name, d) for name, d in distributions.items()}
        return {name: values[shared[name]] for name in genes.distributions}

    _run(new_study(sampler, case), suggest, case.trials, seed, log)


def _mergekit_evolve(case: Case, method: str, seed: int, log: Log) -> None:
    def score(params: Params) -> float:
        return float(log.score(params).mean())

    evolve(case.landscape.genes, score, case.trials, seed)


def _botorch(case: Case, method: str, seed: int, log: Log) -> None:
    def score(params: Params) -> list[float]:
        return log.score(params).tolist()

    bayes(case.landscape.genes, case.landscape.parents, score, case.trials, seed)


OTHERS: Mapping[str, Callable[[Case, str, int, Log], None]] = {
    PEER: _mergekit_evolve,
    WHOLE_MODEL: _whole_model_nsga2,
    **({BOTORCH: _botorch} if is_installed() else {}),
}


def _run(
    study: optuna.Study, suggest: Callable[[Trial], Params], trials: int, seed: int, log: Log
) -> None:
    """Keep four trials in flight; results arrive in random order."""
    order = np.random.default_rng(seed_for(seed, "order"))
    pending: list[tuple[Trial, Params]] = []
    asked = 0
    while len(log) < trials:
        while len(pending) < _IN_FLIGHT and asked < trials:
            trial = study.ask()
            pending.append((trial, suggest(trial)))
            asked += 1
        trial, params = pending.pop(int(order.integers(len(pending))))
        study.tell(trial, log.score(params).tolist())


def new_study(sampler: BaseSampler, case: Case) -> optuna.Study:
    """Make a study of a case, in memory."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=sampler, directions=["maximize"] * case.n_objectives)


def _whole_model_name(gene: str) -> str:
    """Drop depth and module from ``parameter.module.depth.expert``."""
    parts = gene.split(".")
    return f"{parts[0]}.{parts[-1]}" if parts[0] in ("coefficient", "density") else parts[0]


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> float | str:
    if isinstance(distribution, CategoricalDistribution):
        chosen = trial.suggest_categorical(name, distribution.choices)
        assert isinstance(chosen, str)
        return chosen
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
