"""What the search itself costs: asks and tells per second, seconds per ask, busy workers.

Scores come from a formula; the journal, the samplers and the loop are the real ones.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import create_trial

from evomerge.evaluation.scores import MetricValue, Scores
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Job, Outcome, Scored
from evomerge.runs.parts import build_space
from evomerge.samplers import GeneSpace, SearchProblem, build_sampler
from evomerge.seeds import seed_for
from evomerge.space.protocol import ModelSet
from evomerge.study.folder import StudyFolder
from evomerge.study.ledger import Ledger
from evomerge.study.records import make_objectives
from evomerge.study.search import Budget, Search
from evomerge.study.storage import open_storage
from evomerge.study.timing import Timing

__all__ = ["main"]

_OBJECTIVES = make_objectives([("one", "acc", "maximize"), ("two", "acc", "maximize")])
_EXPERTS = {name: name for name in ("a", "b", "c")}


class _Clock:
    """An executor whose jobs take as long as they say, on a clock of its own.

    Args:
        n_workers: Jobs in flight.
        shortest: Seconds of the shortest job; the longest takes 10 times as long.
    """

    def __init__(self, n_workers: int, shortest: float) -> None:
        self.n_workers, self._shortest = n_workers, shortest
        self._ends: list[tuple[float, int, Job]] = []
        self._driver_free = time.perf_counter()
        self.now = 0.0
        self._busy: list[tuple[float, float]] = []

    def submit(self, job: Job) -> None:
        """Start a job as late as the driver was busy before."""
        self.now += time.perf_counter() - self._driver_free
        rng = np.random.default_rng(seed_for(0, "seconds", job.trial))
        seconds = self._shortest * 10 ** rng.random()
        self._busy.append((self.now, self.now + seconds))
        heapq.heappush(self._ends, (self.now + seconds, job.trial, job))
        self._driver_free = time.perf_counter()

    def next_outcome(self) -> Outcome:
        """Return the job that ends first; nobody waits for real."""
        self.now += time.perf_counter() - self._driver_free
        end, _, job = heapq.heappop(self._ends)
        self.now = max(self.now, end)
        self._driver_free = time.perf_counter()
        return Scored(job, _scores(job))

    def close(self) -> None:
        """Nothing to stop."""

    @property
    def busy_share(self) -> float:
        """Share of the workers' time in jobs, until the last job starts.

        After that workers run out of trials one by one, whatever the driver does.
        """
        until = max(start for start, _ in self._busy)
        used = sum(min(end, until) - start for start, end in self._busy)
        return used / (until * self.n_workers)


def _scores(job: Job) -> Scores:
    mixes = [rule.parameters["coefficient"] for rule in job.recipe.rules]
    shares = np.array([list(m.values()) for m in mixes if isinstance(m, Mapping)], dtype=np.float64)
    values = [1 - float(np.mean((shares - target) ** 2)) for target in (0.3, 0.7)]
    metrics = {
        o.task: {"acc": MetricValue(v, 0.01, 100)} for o, v in zip(_OBJECTIVES, values, strict=True)
    }
    return Scores(metrics, (), 0.0)


@contextmanager
def _search(
    sampler: str, executor: _Clock, *, n_layers: int, trials: int
) -> Iterator[tuple[Search, Study]]:
    """A search of 3 experts and 2 kinds of modules, so 6 genes per layer, in a folder."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    models = ModelSet("base", _EXPERTS, n_layers=n_layers)
    content = {
        "method": "task_arithmetic",
        "depth": "per_layer",
        "modules": {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]},
        "genes": {"coefficient": {"range": [0, 1]}},
    }
    space = build_space(content, models)
    with tempfile.TemporaryDirectory() as root:
        folder = StudyFolder(Path(root))
        study = optuna.create_study(
            storage=open_storage(folder.journal),
            sampler=build_sampler(
                sampler,
                {},
                SearchProblem(
                    space=GeneSpace(space.distributions, space.defaults, space.depths),
                    n_objectives=2,
                    n_trials=trials,
                    seed=1,
                ),
            ),
            directions=["maximize", "maximize"],
        )
        yield (
            Search(
                Ledger(study, _OBJECTIVES, ItemStore(folder.items)),
                space,
                executor,
                budget=Budget(trials),
                timing=Timing(folder.timing),
            ),
            study,
        )


def trials_per_second(sampler: str, *, trials: int = 150) -> float:
    """Run the loop on 96 genes with jobs that take no time: asks and tells per second."""
    with _search(sampler, _Clock(4, 1.0), n_layers=16, trials=trials) as (search, _):
        start = time.perf_counter()
        search.run()
        return trials / (time.perf_counter() - start)


def busy_share(sampler: str, *, n_workers: int = 8, trials: int = 200) -> float:
    """Share of the workers' time that goes to jobs of 2 to 20 seconds, on 48 genes."""
    clock = _Clock(n_workers, 2.0)
    with _search(sampler, clock, n_layers=8, trials=trials) as (search, _):
        search.run()
    return clock.busy_share


def ask_seconds(sampler: str, n_genes: int, *, n_trials: int = 300, n_asks: int = 5) -> float:
    """Median seconds of an ask after so many trials, 2 objectives, 4 trials in flight."""
    names = [f"g{i}" for i in range(n_genes)]
    genes = dict.fromkeys(names, optuna.distributions.FloatDistribution(0.0, 1.0))
    space = GeneSpace(genes, dict.fromkeys(names, 0.5))
    study = optuna.create_study(
        sampler=build_sampler(
            sampler, {}, SearchProblem(space=space, n_objectives=2, n_trials=n_trials, seed=1)
        ),
        directions=["maximize", "maximize"],
    )
    rng = np.random.default_rng(0)
    for point in rng.random((n_trials, n_genes)):
        values = [1 - float(np.mean((point - target) ** 2)) for target in (0.3, 0.7)]
        params = dict(zip(names, point.tolist(), strict=True))
        study.add_trial(create_trial(params=params, distributions=genes, values=values))
    seconds = []
    for _ in range(4 + n_asks):
        start = time.perf_counter()
        study.ask(dict(genes))  # stays in flight
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[4:]))


def main() -> None:
    """Print every figure."""
    print("96 genes, journal on disk, the study's own loop:")
    for sampler in ("random", "nsga2", "pycma", "catcma"):
        print(f"  {sampler:12} {trials_per_second(sampler):6.0f} asks and tells per second")
    print("300 trials, 2 objectives, 4 in flight: seconds per ask of 20 and 100 genes")
    for sampler in ("gp", "tpe", "map", "pycma", "catcma", "comocma", "m2n2", "greedy_soup"):
        few, many = (ask_seconds(sampler, n_genes) for n_genes in (20, 100))
        print(f"  {sampler:12} {few:6.3f} {many:6.3f}")
    print("8 workers, 48 genes, jobs of 2 to 20 s (simulated): share of workers' time in use")
    for sampler in ("random", "tpe", "pycma", "comocma", "map"):
        print(f"  {sampler:12} {busy_share(sampler):6.1%}")


if __name__ == "__main__":
    main()
