"""Who races against whom, and what a study keeps of a race."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evomerge.evaluation.racing import Race, RaceRules
from evomerge.evaluation.scores import ItemScore, MetricValue, Scores
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Job, Outcome, Pruned, Scored
from evomerge.seeds import seed_for
from evomerge.study.constraints import Constraint, parse_bound
from evomerge.study.folder import StudyFolder
from evomerge.study.records import make_objectives
from evomerge.study.rivals import Rivals
from tests.study.test_search import OBJECTIVES, drive, outcome

N_ITEMS = 200
DIFFICULTY = np.random.default_rng(0).random(N_ITEMS)
RULES = RaceRules((0.25, 0.5), tolerance=0)


class RacingExecutor:
    """Solves the items whose difficulty a recipe's skill exceeds; runs the races of its jobs."""

    n_workers = 1

    def __init__(self, die_after: int | None = None) -> None:
        self._left, self._jobs = die_after, deque[Job]()
        self.races: list[Race] = []

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def next_outcome(self) -> Outcome:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left = None if self._left is None else self._left - 1
        job = self._jobs.popleft()
        self.races += [job.race] if job.race else []
        mix = job.recipe.rules[0].parameters["coefficient"]
        assert isinstance(mix, dict)
        a, b = float(mix["a"]), float(mix["b"])
        items = [*solved("one", a - b / 2), *solved("two", b - a / 2)]
        for share in RULES.rungs:
            seen = [i for i in items if i.item < share * N_ITEMS]
            if job.race is not None and (drop := job.race.drop(seen)) is not None:
                return Pruned(job, drop.reason, {}, drop.estimates, tuple(seen))
        return Scored(job, Scores(metrics(items), tuple(items), 0.0))

    def close(self) -> None:
        self._jobs.clear()


def solved(task: str, skill: float) -> list[ItemScore]:
    return [ItemScore(task, i, "acc", float(skill > d)) for i, d in enumerate(DIFFICULTY)]


def metrics(items: list[ItemScore]) -> dict[str, dict[str, MetricValue]]:
    shares = {t: [i.score for i in items if i.task == t] for t in ("one", "two")}
    return {t: {"acc": MetricValue(float(np.mean(s)), 0.03, len(s))} for t, s in shares.items()}


def test_a_search_drops_trials_and_remembers_what_it_learned(tmp_path: Path) -> None:
    trials = drive(tmp_path, RacingExecutor(), trials=60, race=RULES)
    dropped = [t for t in trials if t.state == "pruned"]
    assert 5 < len(dropped) < 50
    assert all(t.origin == "search" and not t.values and t.partial for t in dropped)
    stored = ItemStore(StudyFolder(tmp_path).items).read().groupby("trial").size()
    for trial in dropped:
        assert trial.partial is not None
        assert sum(trial.partial.n_items) == stored[trial.number] < 2 * N_ITEMS
        a, b = (trial.params[f"coefficient.{name}"] for name in "ab")
        truth = [np.mean(a - b / 2 > DIFFICULTY), np.mean(b - a / 2 > DIFFICULTY)]
        assert trial.partial.values == pytest.approx(truth, abs=0.2)
    assert all(t.n_items == (N_ITEMS, N_ITEMS) for t in trials if t.state == "complete")


@pytest.mark.parametrize(
    ("sampler", "estimates"), [("nsga2", True), ("pycma", False), ("m2n2", False)]
)
def test_an_interrupted_search_with_races_goes_on_as_if_it_had_not_been(
    tmp_path: Path, sampler: str, estimates: bool
) -> None:
    rules, executor = replace(RULES, estimates=estimates), RacingExecutor()
    whole = drive(tmp_path / "a", executor, trials=60, sampler=sampler, race=rules)
    assert any(race.responses for race in executor.races) == estimates
    for executor in (RacingExecutor(28), RacingExecutor(11), RacingExecutor()):
        parts = drive(tmp_path / "b", executor, trials=60, sampler=sampler, race=rules)
    assert outcome(parts) == outcome(whole)
    assert [t.partial for t in parts] == [t.partial for t in whole]
    assert {t.state for t in whole} == {"complete", "pruned"}


def test_only_feasible_trials_drop_others(tmp_path: Path) -> None:
    """The bound is known only once expert b, the best in task two, is done: it breaks it, too."""
    bound = "expert:b - 0.1"
    limit = Constraint("two", "acc", "at_most", parse_bound(bound), bound)
    executor = RacingExecutor()
    trials = drive(tmp_path, executor, trials=60, race=RULES, constraints=(limit,))
    assert any(t.values and not t.is_feasible for t in trials)
    assert any(t.state == "pruned" for t in trials)
    assert max(t.values[1] for t in trials if t.origin == "expert:b") == 1.0
    assert max(race.contests[1].front.max() for race in executor.races) <= 0.9


def test_only_the_front_races() -> None:
    rivals = Rivals(OBJECTIVES, RULES, seed=0)
    assert rivals.race(0) is None
    for number, (one, two) in enumerate([(0.5, 0.2), (0.4, 0.1), (0.2, 0.5), (0.6, 0.2)]):
        items = [*solved("one", one), *solved("two", two)]
        rivals.add(number, [m["acc"].value for m in metrics(items).values()], items)
    race = rivals.race(0)
    assert race is not None
    front = np.stack([c.front for c in race.contests], axis=1)
    expected = [[np.mean(s > DIFFICULTY) for s in pair] for pair in [(0.2, 0.5), (0.6, 0.2)]]
    assert front.tolist() == expected


def test_the_draws_of_a_race_are_named_by_study_and_trial() -> None:
    def seed_of(study_seed: int, number: int) -> int:
        rivals = Rivals(OBJECTIVES, RULES, seed=study_seed)
        items = [*solved("one", 0.5), *solved("two", 0.5)]
        rivals.add(0, [m["acc"].value for m in metrics(items).values()], items)
        race = rivals.race(number)
        assert race is not None
        return race.seed

    assert seed_of(3, 7) == seed_for(3, "race", 7)
    assert len({seed_of(study, number) for study in (0, 1) for number in (7, 8)}) == 4


def test_values_keep_their_sign_where_less_is_better() -> None:
    rivals = Rivals(make_objectives([("one", "acc", "minimize")]), RULES, seed=0)
    rivals.add(0, [0.5], [ItemScore("one", i, "acc", i % 2) for i in range(10)])
    race = rivals.race(0)
    assert race is not None
    assert race.contests[0].front.tolist() == [-0.5]
    assert race.contests[0].worst == -0.5


def test_an_objective_that_is_no_mean_of_items_ends_all_races() -> None:
    rivals = Rivals(OBJECTIVES, RULES, seed=0)
    items = [*solved("one", 0.5), *solved("two", 0.5)]
    rivals.add(0, [m["acc"].value for m in metrics(items).values()], items)
    assert rivals.race(0) is not None
    rivals.add(1, [0.9, 7.0], items)
    assert rivals.race(0) is None
