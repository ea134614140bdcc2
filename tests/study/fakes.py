"""An executor with closed-form scores: the loop, the store and the samplers are the real ones."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from evomerge.evaluation.scores import ItemScore, MetricValue, Scores
from evomerge.execution.protocol import Climb, Climbed, Failed, Job, Outcome, Pruned, Scored


class FormulaExecutor:
    """Scores a recipe by its coefficients; task ``one`` wants expert a, task ``two`` wants b.

    Args:
        n_workers: Jobs in flight.
        fail: Trial numbers that fail.
        prune: Trial numbers that are given up, where their job allows it.
        die_after: Outcomes after which the driver is interrupted.
    """

    def __init__(
        self,
        n_workers: int = 1,
        fail: frozenset[int] = frozenset(),
        die_after: int | None = None,
        prune: frozenset[int] = frozenset(),
    ) -> None:
        self.n_workers, self._prune = n_workers, prune
        self._fail, self._left = fail, die_after
        self._jobs: deque[Job] = deque()
        self.ran: list[int] = []

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def next_outcome(self) -> Outcome:
        if self._left == 0:
            raise KeyboardInterrupt
        if self._left is not None:
            self._left -= 1
        # The last job first: results arrive out of order when there are several workers.
        job = self._jobs.pop()
        self.ran.append(job.trial)
        if job.trial in self._fail:
            return Failed(job, "ValueError: asked to fail")
        if job.trial in self._prune and job.is_gated:
            return Pruned(job, "asked to give up", {"merge": 0.001, "evaluate": 0.001})
        scored = Scored(job, _scores(job), {"merge": 0.001, "evaluate": 0.002})
        values = [task["acc"].value for task in scored.scores.metrics.values()]
        if job.climb is None or not job.climb.is_wanted(values):
            return scored
        return _climbed(scored, job.climb)

    def close(self) -> None:
        self._jobs.clear()


def _climbed(scored: Scored, climb: Climb) -> Scored:
    """Halve the way to the best place for both tasks; seed -1 has bad luck."""
    seconds = {**scored.seconds, "slopes": 0.003}
    if climb.seed == -1:
        return replace(scored, seconds=seconds, climb_error="RuntimeError: out of memory")
    best = {"coefficient.a": 0.4, "coefficient.b": 0.3}
    params = {name: (float(value) + best[name]) / 2 for name, value in climb.params.items()}
    climbed = Climbed(params, ((0.5, 0.4),) * climb.steps, climb.n_items)
    return replace(scored, seconds=seconds, climbed=climbed)


def _scores(job: Job) -> Scores:
    mix = job.recipe.rules[0].parameters["coefficient"]
    assert isinstance(mix, dict)
    one = 1 - (float(mix["a"]) - 0.8) ** 2 - float(mix["b"]) ** 2
    two = 1 - float(mix["a"]) ** 2 - (float(mix["b"]) - 0.6) ** 2
    metrics = {
        "one": {"acc": MetricValue(one, 0.01, 100)},
        "two": {"acc": MetricValue(two, 0.02, 100)},
    }
    return Scores(metrics, (ItemScore("one", 0, "acc", one),), 0.002)
