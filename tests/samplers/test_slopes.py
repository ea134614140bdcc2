"""Chains of climbs: on noisy objectives whose slopes are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState

from evomerge.errors import ConfigError, SpaceError
from evomerge.execution.climb import Factors, SlopedGenes, Slopes, climb, drawn_items
from evomerge.execution.protocol import Climb
from evomerge.pareto import volume
from evomerge.samplers import GeneSpace, SearchProblem, SlopesFirst, build_sampler
from evomerge.samplers.chains import LINK
from evomerge.samplers.preferences import Yardstick, lacking, voices, yardstick_of
from evomerge.samplers.results import Result
from evomerge.space.protocol import ModelSet, Params
from tests.samplers.searches import (
    MIXED,
    SLOPED,
    new_study,
    open_journal,
    params_of,
    run_one_by_one,
    sampler_for,
)
from tests.space.test_parameter import space

optuna.logging.set_verbosity(optuna.logging.WARNING)

LAYERS = space(
    {
        "method": "ties",
        "depth": {"groups": 4},
        "modules": {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]},
        "genes": {
            "coefficient": {"range": [0.0, 1.2]},
            "density": {"range": [0.1, 1.0], "per": ["expert"]},
        },
    },
    ModelSet("base", {"math": "m", "list": "l"}, n_layers=8),
)
GENES = GeneSpace(LAYERS.distributions, LAYERS.defaults, LAYERS.depths)
CLIMBED = sorted(name for name in LAYERS.distributions if name.startswith("coefficient"))
AXES = SlopedGenes(LAYERS)
N_ITEMS = 60


@dataclass
class Search:
    """Two objectives over coefficients: how many of 60 items are near enough to their optimum.

    Every item has an optimum of its own, around that of its objective.
    """

    study: Study
    seed: int = 0
    cost: float = 0.0
    in_flight: int = 1
    seen: list[tuple[float, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        middle = np.array([0.8 if name.endswith("math") else 0.3 for name in CLIMBED])
        self._optima = [
            target + rng.normal(0, 0.1, (N_ITEMS, len(CLIMBED)))
            for target in (middle, 1.1 - middle)
        ]
        self._order = np.random.default_rng(self.seed)

    def run(self, cost: float) -> Search:
        pending: list[tuple[Trial, Params]] = []
        while self.cost < cost:
            while len(pending) < self.in_flight:
                trial = self.study.ask()
                pending.append((trial, LAYERS.suggest(trial)))
            trial, params = pending.pop(int(self._order.integers(len(pending))))
            self.finish(trial, params)
        return self

    def finish(self, trial: Trial, params: Params) -> None:
        values = tuple(float((self._closeness(k, params) > 0.5).mean()) for k in (0, 1))
        self.cost += 1
        data = self.study.get_trials(deepcopy=False)[trial.number].user_attrs.get("climb")
        if data and (wanted := Climb.read(data)).is_wanted(values):
            assert data["params"].items() >= params.items()
            ended = climb(wanted, AXES, lambda *at: self._slopes(wanted, *at))
            trial.set_user_attr("climbed", {"params": dict(ended.params)})
            self.cost += 3 * ended.n_items / (2 * N_ITEMS)
        self.seen.append(values)
        self.study.tell(trial, values)

    def volume(self) -> float:
        return volume(np.array(self.seen), np.zeros(2))

    def _closeness(
        self, k: int, params: Params, rows: slice | list[int] = slice(None)
    ) -> NDArray[np.float64]:
        point = np.array([params[name] for name in CLIMBED])
        density = (float(params["density.math"]) - 0.4) ** 2
        squares = ((self._optima[k][rows] - point) ** 2).sum(axis=1)
        return np.asarray(np.exp(-0.6 * squares - density))

    def _slopes(
        self, request: Climb, params: Params, step: int, sums: Sequence[Factors]
    ) -> list[Slopes]:
        losses, slopes = [], []
        for k in (0, 1):
            rows = drawn_items(request, step, k, N_ITEMS)
            point = np.array([params[name] for name in CLIMBED])
            near = self._closeness(k, params, rows)
            slopes.append((near[:, None] * 1.2 * (point - self._optima[k][rows])).mean(axis=0))
            losses.append(float(1 - near.mean()))
        found = []
        for factors in sums:
            along = dict(zip(CLIMBED, (np.array(factors) @ slopes).tolist(), strict=True))
            own = tuple(loss for loss, factor in zip(losses, factors, strict=True) if factor)
            found.append(Slopes(own, along, len(own) * min(request.items, N_ITEMS)))
        return found


def problem(seed: int = 0, **changes: Any) -> SearchProblem:
    settings: dict[str, Any] = {
        "space": GENES,
        "n_objectives": 2,
        "n_trials": 100,
        "seed": seed,
        "sloped": frozenset(CLIMBED),
        "sloped_objectives": (True, True),
    }
    return SearchProblem(**{**settings, **changes})


def search(
    name: str = "slopes", *, seed: int = 0, in_flight: int = 1, **options: str | float
) -> Search:
    study = optuna.create_study(
        sampler=build_sampler(name, options, problem(seed)), directions=["maximize"] * 2
    )
    for math, list_ in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        own = {n: math if n.endswith("math") else list_ for n in CLIMBED}
        study.enqueue_trial({**LAYERS.defaults, **own})
    return Search(study, seed=seed, in_flight=in_flight)


def one_objective(**changes: Any) -> Study:
    """A loss to be minimised."""
    asked = problem(n_objectives=1, sloped_objectives=(True,), **changes)
    return optuna.create_study(sampler=build_sampler("slopes", {}, asked), directions=["minimize"])


def tell(study: Study, loss: float, *, ends: bool = True, excess: float = 0.0) -> None:
    """Run a trial that has a loss, and whose climb ends somewhere or was not taken."""
    trial = study.ask()
    LAYERS.suggest(trial)
    if ends:
        params = {**LAYERS.defaults, CLIMBED[0]: loss / 10}
        trial.set_user_attr("climbed", {"params": params})
    trial.set_user_attr("constraints", [excess])
    study.tell(trial, loss)


def links(study: Study) -> dict[int, dict[str, Any]]:
    return {t.number: t.system_attrs[LINK] for t in study.trials if LINK in t.system_attrs}


def test_the_next_trial_of_a_chain_is_where_the_climb_before_ended_or_halfway_to_there() -> None:
    study = search().run(90).study
    after = {n: link["after"] for n, link in links(study).items() if link["after"] is not None}
    n_climbed = 0
    for number, before in after.items():
        params, last = study.trials[number].params, study.trials[before]
        if "climbed" in last.user_attrs:
            n_climbed += 1
            assert params == pytest.approx(last.user_attrs["climbed"]["params"])
        else:
            first = study.trials[after[before]]
            middle = {name: (first.params[name] + last.params[name]) / 2 for name in params}
            assert params == pytest.approx(middle)
        assert links(study)[number]["preference"] == links(study)[before]["preference"]
    assert 3 <= n_climbed < len(after)


def test_only_what_got_farther_climbs_on() -> None:
    study = search().run(90).study
    known = [
        result(t.number, tuple(-v for v in t.values), queued=t.number < 3) for t in study.trials
    ]
    outcomes = []
    for number, link in links(study).items():
        if (before := link["after"]) is None:
            continue
        if "climbed" not in study.trials[before].user_attrs:  # it was halfway to there
            before = links(study)[before]["after"]
        yardstick, preference = yardstick_of(known[:number], 2), np.array(link["preference"])
        own, best = (yardstick.along(known[n].losses or (), preference) for n in (number, before))
        outcomes.append(own > best)
        assert ("climbed" in study.trials[number].user_attrs) == outcomes[-1]
    assert {True, False} == set(outcomes)


def test_baselines_take_no_climb_and_the_first_chain_starts_in_their_midst() -> None:
    found = search().run(12)
    climbs = ["climb" in trial.user_attrs for trial in found.study.trials]
    assert climbs[:3] == [False] * 3
    assert all(climbs[3:])
    first = found.study.trials[3]
    assert first.user_attrs["climb"]["voices"] == [0.5, 0.5]
    assert first.system_attrs[LINK] == {"after": None, "preference": [1.0, 1.0], "pull": 0.5}


def test_the_first_chain_may_start_at_the_neutral_values_and_need_no_labels() -> None:
    first, *_, last = search(start="neutral", loss="entropy").run(40).study.trials[3:]
    assert first.params == pytest.approx(LAYERS.defaults)
    assert first.user_attrs["climb"]["loss"] == last.user_attrs["climb"]["loss"] == "entropy"
    assert last.params != pytest.approx(LAYERS.defaults)
    plain = search().run(5).study.trials[3]
    assert plain.params != pytest.approx(LAYERS.defaults)
    assert plain.user_attrs["climb"]["loss"] == "gold"


def test_the_pull_may_vary_from_chain_to_chain() -> None:
    study = search(pull="varied").run(120).study
    starts = [link for link in links(study).values() if link["after"] is None]
    assert [link["pull"] for link in starts][:4] == [0.5, 0.0, 2.0, 0.5]
    for number, link in links(study).items():
        assert study.trials[number].user_attrs["climb"]["pull"] == link["pull"]
        if link["after"] is not None:
            assert link["pull"] == links(study)[link["after"]]["pull"]


def test_a_chain_ends_where_the_real_score_gets_no_better() -> None:
    study = one_objective()
    for value in (5.0, 4.0, 6.0, 4.5, 3.0):  # the third and fourth are worse than the second
        tell(study, value, ends=value in (5.0, 4.0, 3.0))
    assert [link["after"] for link in links(study).values()] == [None, 0, 1, 2, None]


def test_chains_that_ended_in_an_earlier_version_stay_so() -> None:
    """There every trial climbed on, one that got no farther, too."""
    study = one_objective()
    for value in (5.0, 4.0, 6.0, 3.0):
        tell(study, value)
    assert [link["after"] for link in links(study).values()] == [None, 0, 1, None]


def test_a_chain_that_becomes_feasible_climbs_on_from_there() -> None:
    study = one_objective(constrained=True)
    for value, excess in ((4.0, 1.0), (5.0, -1.0), (4.5, -1.0)):  # the best one is not allowed
        tell(study, value, excess=excess)
    goals = [t.user_attrs["climb"].get("goal") for t in study.trials]
    assert goals[:2] == [None, None]
    assert Climb.read(study.trials[2].user_attrs["climb"]).is_wanted([4.5])
    assert not Climb.read(study.trials[2].user_attrs["climb"]).is_wanted([5.0])
    assert [link["after"] for link in links(study).values()] == [None, 0, 1]


def test_no_chain_goes_on_from_a_trial_that_still_runs() -> None:
    study = search().run(3).study
    trial = study.ask()
    trial.set_user_attr("climbed", {"params": LAYERS.suggest(trial)})  # not told yet
    following = study.ask()
    LAYERS.suggest(following)
    assert links(study)[following.number]["after"] is None


def test_no_middle_is_tried_between_trials_that_break_a_constraint() -> None:
    study = one_objective(constrained=True)
    for value, ends in ((5.0, True), (6.0, False), (4.0, False)):
        tell(study, value, ends=ends, excess=1.0)
    assert [link["after"] for link in links(study).values()] == [None, 0, None]


def test_a_chain_goes_on_from_the_middle_where_that_got_farther() -> None:
    study = one_objective()
    for value, ends in ((5.0, True), (6.0, False), (4.0, True), (3.0, False), (2.0, True)):
        tell(study, value, ends=ends)
    assert [link["after"] for link in links(study).values()] == [None, 0, 1, 2, None]


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_a_failed_trial_ends_its_chain(state: TrialState) -> None:
    found = search().run(12)
    trial = found.study.ask()
    LAYERS.suggest(trial)
    found.study.tell(trial, state=state)
    following = found.study.ask()
    LAYERS.suggest(following)
    assert links(found.study)[following.number]["after"] != trial.number


def test_a_trial_that_was_dropped_from_a_race_ends_its_chain() -> None:
    study = one_objective()
    tell(study, 5.0)
    trial = study.ask()
    LAYERS.suggest(trial)
    trial.set_user_attr("partial", {"values": [6.0], "stderr": [0.1], "n_items": [9]})
    study.tell(trial, state=TrialState.PRUNED)
    tell(study, 3.0)
    assert [link["after"] for link in links(study).values()] == [None, 0, None]


def test_a_trial_whose_climb_failed_is_a_trial_like_any_other() -> None:
    study = search().study
    for _ in range(8):
        trial = study.ask()
        LAYERS.suggest(trial)
        study.tell(trial, (0.5, 0.5))
    assert all(link["after"] is None for link in links(study).values())


def test_chains_in_flight_have_preferences_and_places_of_their_own() -> None:
    study = search(in_flight=4).run(60).study
    running = study.get_trials(states=[TrialState.RUNNING])
    assert len(running) == 3  # the fourth was the last one to end
    assert len({tuple(links(study)[t.number]["preference"]) for t in running}) == 3
    points = [tuple(t.params.values()) for t in study.trials]
    assert len(points) == len(set(points))


def test_genes_without_slopes_are_held_in_a_chain_and_vary_between_chains() -> None:
    study = search().run(80).study
    for number, link in links(study).items():
        if link["after"] is not None:
            one, other = (study.trials[n].params for n in (number, link["after"]))
            assert all(one[name] == pytest.approx(other[name]) for name in one if "density" in name)
    starts = [study.trials[n].params for n, link in links(study).items() if link["after"] is None]
    assert len({tuple(p[n] for n in p if "density" in n) for p in starts}) > 2


def test_no_chain_starts_from_what_breaks_a_constraint() -> None:
    """The better math is, the worse it breaks the constraint: starts stay within it, almost."""
    study = new_study(sampler_for("slopes", 1, constrained=True), 1)
    while len(study.trials) < 25:
        trial = study.ask()
        params = {n: trial._suggest(n, d) for n, d in MIXED.distributions.items()}
        trial.set_user_attr("constraints", [float(params["math"]) - 0.6])
        study.tell(trial, -float(params["math"]))
    starts = [t.params["math"] for t in study.trials[5:]]
    assert max(starts) < 0.6 + 0.25
    assert np.mean(starts) < 0.65


def test_it_finds_better_fronts_than_evolution_at_equal_cost() -> None:
    ours, theirs = (
        sum(search(name, seed=seed).run(80).volume() for seed in (1, 2, 3))
        for name in ("slopes", "catcma")
    )
    assert ours > 2 * theirs


def test_what_is_asked_again_is_the_same() -> None:
    """A driver was killed before the params were stored: another one asks for the same trial."""
    found = search().run(20)
    trial = found.study.ask()
    asked = found.study.get_trials(deepcopy=False)[trial.number]
    sampler = build_sampler("slopes", {}, problem())
    again = sampler.sample_relative(found.study, asked, dict(GENES.searched))
    assert again == LAYERS.suggest(trial)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"sloped": frozenset()}, "genes"), ({"sloped_objectives": (False, False)}, "objective")],
)
def test_a_search_without_slopes_is_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(SpaceError, match=f"{fault}.*slopes.*, got none; choose another sampler"):
        build_sampler("slopes", {}, problem(**changes))


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="step_size"):
        build_sampler("slopes", {"step_size": 2.0}, problem())
    with pytest.raises(ConfigError, match="pull"):
        build_sampler("slopes", {"pull": "often"}, problem())


def test_objectives_without_slopes_have_no_weight() -> None:
    study = optuna.create_study(
        sampler=build_sampler("slopes", {}, problem(sloped_objectives=(True, False))),
        directions=["maximize"] * 2,
    )
    LAYERS.suggest(study.ask())
    first, second = study.get_trials()[0].user_attrs["climb"]["voices"]
    assert first > 0 == second


def result(number: int, losses: tuple[float, ...] | None, *, queued: bool = False) -> Result:
    return Result(number, {}, {}, losses, 0.0, pruned=False, queued=queued)


def test_scores_are_shares_of_what_baselines_span() -> None:
    known = [result(0, (-0.2, -0.9), queued=True), result(1, (-0.6, -0.1), queued=True)]
    yardstick = yardstick_of([*known, result(2, (-0.9, -0.9)), result(3, None)], 2)
    assert yardstick.progress([(-0.2, -0.9), (-0.4, -0.5)]) == pytest.approx(
        np.array([[0.1, 1.1], [0.6, 0.6]])
    )
    assert yardstick.progress([yardstick.zero]) == pytest.approx(np.zeros((1, 2)))
    assert yardstick_of([], 2).progress([(0.0, 0.0)]).shape == (1, 2)
    assert yardstick_of([result(0, (1.0, 2.0))], 2).width.tolist() == [1.0, 1.0]


def test_what_is_behind_along_a_preference_decides() -> None:
    yardstick = Yardstick(np.zeros(2), np.ones(2))
    even, first = np.array([1.0, 1.0]), np.array([1.0, 0.2])
    assert yardstick.along((-0.5, -0.5), even) > yardstick.along((-0.9, -0.3), even)
    assert yardstick.along((-0.5, -0.5), first) < yardstick.along((-0.9, -0.3), first)


def test_the_front_lacks_most_in_its_gap_until_a_chain_is_under_way_there() -> None:
    front = np.array([[1.0, 0.05], [0.9, 0.5], [0.3, 1.0]])
    chosen = lacking(front, [], np.random.default_rng(0))
    ratio = chosen[0] / chosen[1]
    assert 0.3 < ratio < 0.9  # between the last two
    other = lacking(front, [chosen], np.random.default_rng(0))
    assert abs(other[0] / other[1] - ratio) > 0.05
    assert lacking(np.zeros((0, 3)), [], np.random.default_rng(0)).tolist() == [1.0] * 3


def test_an_objective_that_is_behind_has_more_voice() -> None:
    behind, ahead = voices(np.array([0.2, 0.8]), np.array([1.0, 1.0]))
    assert behind > 2 * ahead > 0
    assert voices(np.array([0.4, 0.8]), np.array([0.5, 1.0])) == pytest.approx([0.5, 0.5])
    assert voices(None, np.array([0.5, 1.0])) == pytest.approx([1 / 3, 2 / 3])


def test_slopes_first_and_then_another_sampler(tmp_path: Path) -> None:
    def run(n_trials: int, storage: BaseStorage | None = None) -> Study:
        budget = SearchProblem(
            MIXED, 2, n_trials=30, seed=3, sloped=SLOPED, sloped_objectives=(True, True)
        )
        then = build_sampler("catcma", {"popsize": 5}, budget)
        study = new_study(SlopesFirst(then, 6, budget), 2, storage)
        run_one_by_one(study, n_trials)
        return study

    for n_trials in (4, 9, 14):
        resumed = run(n_trials, open_journal(tmp_path / "study"))
    whole = run(14)
    assert params_of(resumed) == params_of(whole)
    assert sorted(links(whole)) == list(range(6))
    assert all("climb" not in trial.user_attrs for trial in whole.trials[6:])


@pytest.mark.parametrize(
    ("ended", "goes_on"),
    [("", True), ("f", False), ("ff", False), ("sf", True), ("sff", True), ("sfff", False)],
)
def test_climbs_that_all_fail_are_given_up(ended: str, *, goes_on: bool) -> None:
    """The first ones, or three in a row; trials are asked for all the same."""
    sampler = build_sampler("slopes", {}, problem())
    study = optuna.create_study(sampler=sampler, directions=["maximize"] * 2)
    for outcome in ended:
        trial = study.ask()
        LAYERS.suggest(trial)
        if outcome == "f":
            trial.set_user_attr("climb_error", "RuntimeError: no derivative")
        else:
            trial.set_user_attr("climbed", {"params": trial.params})
        study.tell(trial, [0.1, 0.2])
    params = [LAYERS.suggest(study.ask()) for _ in range(2)]
    assert params[0] != params[1]
    assert all(("climb" in t.user_attrs) == goes_on for t in study.get_trials()[-2:])
