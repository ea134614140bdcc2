"""Races replayed on the item scores of real searches: what they save, what they cost.

    python -m tests.benchmarks.races [--orders N] [--search SEEDS]

Searches of the embedded models with 1, 2 and 3 objectives, two seeds each, are run once without
races (`race_searches`, about ten minutes), so that every item of every trial is known. Their trials
are raced again, in the order in which they were run, for ten orders of the items. The search itself
is not repeated: what a sampler would have asked after a drop is not in a study. ``--search`` does
repeat it; see `race_searches`.

Printed per setting, means over studies and orders and the standard error of the hypervolume:

- items: evaluated, as a share of all; only objectives count.
- volume: hypervolume of the front by scores on all items, against that of the whole study.
- wrong: of the trials that were dropped, the share that would have improved the front at that
  moment as the setting means it: what ``error_rate`` bounds.
- entered: of these, the share that would have entered the front at all, however little they add.
- lost: of the study's final front, the share that was dropped with nothing as good left.

``oracle`` knows every score after the first rung, and drops all that the setting may drop: nobody
who waits for that rung and scores what improves the front on all items can use fewer items.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.analysis.front import complete, front, hypervolume
from evomerge.evaluation.racing import Race, RaceRules
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.pareto import gains
from evomerge.study.records import StudyRecord, TrialRecord
from evomerge.study.rivals import Rivals
from tests.benchmarks import race_searches
from tests.benchmarks.race_searches import search
from tests.benchmarks.results import setting
from tests.benchmarks.studies import load_quickstart

FloatArray = NDArray[np.float64]

COLUMNS = ("items", "volume", "+-", "wrong", "entered", "lost")
_STUDIES = (0, 1)  # seeds
_N_TRIALS = 120


@dataclass(frozen=True)
class Outcome:
    """What racing did to one study with one order of its items; see the top."""

    items: float
    volume: float
    wrong: float
    entered: float
    lost: float


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    Attributes:
        name: Its label.
        rules: Of the races.
        is_oracle: Whether truth decides, after the first rung.
    """

    name: str
    rules: RaceRules
    is_oracle: bool = False


@dataclass(frozen=True)
class Recorded:
    """A study without races.

    Attributes:
        study: Its complete trials.
        scores: Item scores of its objectives by trial number.
    """

    study: StudyRecord
    scores: Mapping[int, Sequence[ItemScore]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=10, help="of the items, per study")
    parser.add_argument("--search", type=int, metavar="SEEDS", help="repeat real searches, too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'obj.':<6}{'race':<24}" + "".join(f"{name:>9}" for name in COLUMNS))
    for n_objectives in (1, 2, 3):
        studies = [record(n_objectives, seed) for seed in _STUDIES]
        for row in settings():
            found = [replay(study, row, o) for study in studies for o in range(chosen.orders)]
            print(f"{n_objectives:<6}{row.name:<24}" + line(found), flush=True)
    if chosen.search:
        race_searches.compare(chosen.search)
    print(f"\nMeasured on {setting()}.")


def settings() -> Iterator[Setting]:
    """List the presets, with estimates and without, and what truth would do."""
    for name in ("careful", "fast"):
        rules = preset(name)
        other = ", no estimates" if rules.estimates else ", estimates"
        yield Setting(name, rules)
        yield Setting(name + other, replace(rules, estimates=not rules.estimates))
        yield Setting(f"{name}, oracle", rules, is_oracle=True)


def preset(name: str) -> RaceRules:
    """Read a preset as an experiment does."""
    rules = load_quickstart([f"race={name}"]).race
    assert rules is not None
    return rules


def record(n_objectives: int, seed: int) -> Recorded:
    """Run a search without races, or read what an earlier call ran."""
    study, folder = search(n_objectives, "off", seed, _N_TRIALS)
    table = ItemStore(folder.items).read()
    table = table[table["split"] == "search"]
    keys = {(o.task, o.metric) for o in study.objectives}
    scores = {
        int(number): [
            score
            for row in rows[["task", "item", "metric", "score"]].itertuples(index=False)
            if ((score := ItemScore(*row)).task, score.metric) in keys
        ]
        for number, rows in table.groupby("trial")
    }
    return Recorded(replace(study, trials=complete(study)), scores)


def replay(recorded: Recorded, setting: Setting, order: int) -> Outcome:
    """Race the trials of a study, for one order of its items."""
    study, scores, rules = recorded.study, recorded.scores, setting.rules
    rungs = cut(scores[study.trials[0].number], rules, order)
    rivals, kept, dropped, used = Rivals(study.objectives, rules, order), [], [], 0
    for trial in study.trials:
        mine = scores[trial.number]
        race = rivals.race(trial.number) if trial.origin == "search" else None
        look = None
        if race is not None:
            looks = [[s for s in mine if (s.task, s.item) in rung] for rung in rungs]
            look = last_look(race, looks, setting, trial)
        used += len(mine if look is None else look)
        if race is None or look is None:
            kept.append(trial)
            rivals.add(trial.number, trial.values, mine)
        else:
            dropped.append((improves(trial, race), enters(trial, race)))
    raced = replace(study, trials=tuple(kept))
    whole = front(study)
    wrong, entered = np.mean(dropped, axis=0) if dropped else (0.0, 0.0)
    return Outcome(
        items=used / sum(map(len, scores.values())),
        volume=volume(raced) / volume(study),
        wrong=float(wrong),
        entered=float(entered),
        lost=sum(not any(as_good(k, t, study) for k in kept) for t in whole) / len(whole),
    )


def last_look(
    race: Race, looks: Sequence[list[ItemScore]], setting: Setting, trial: TrialRecord
) -> list[ItemScore] | None:
    """Return the scores after which the trial is dropped, if it is."""
    if setting.is_oracle:
        return None if improves(trial, race) else looks[0]
    return next((look for look in looks if race.drop(look)), None)


def cut(scores: Sequence[ItemScore], rules: RaceRules, order: int) -> list[set[tuple[str, int]]]:
    """Choose the items of each rung."""
    generator = np.random.default_rng(order)
    rungs: list[set[tuple[str, int]]] = [set() for _ in rules.rungs]
    for task in sorted({s.task for s in scores}):
        shuffled = generator.permutation([s.item for s in scores if s.task == task])
        for rung, share in zip(rungs, rules.rungs, strict=True):
            rung |= {(task, int(item)) for item in shuffled[: int(np.ceil(share * len(shuffled)))]}
    return rungs


def improves(trial: TrialRecord, race: Race) -> bool:
    """Tell whether a trial improves the front, as the rules of its race mean it."""
    if race.rules.tolerance == 0 or not enters(trial, race):
        return enters(trial, race)
    worst = np.array([c.worst for c in race.contests])
    added = gains(signed(trial, race)[None], front_of(race), worst)
    return bool(added[0] > race.rules.tolerance)


def enters(trial: TrialRecord, race: Race) -> bool:
    """Tell whether no member of the front is at least as good."""
    return not (front_of(race) >= signed(trial, race)).all(axis=1).any()


def front_of(race: Race) -> FloatArray:
    """Lay the front out as (members, objectives); more is better."""
    return np.stack([c.front for c in race.contests], axis=1)


def signed(trial: TrialRecord, race: Race) -> FloatArray:
    """Return the values of a trial; more is better."""
    return np.array([c.sign * v for c, v in zip(race.contests, trial.values, strict=True)])


def as_good(one: TrialRecord, other: TrialRecord, study: StudyRecord) -> bool:
    """Tell whether one trial is at least as good as another in every objective."""
    signs = [1 if o.direction == "maximize" else -1 for o in study.objectives]
    return all(s * a >= s * b for s, a, b in zip(signs, one.values, other.values, strict=True))


def volume(study: StudyRecord) -> float:
    """Measure the hypervolume; one objective alone has none worth the name: its best value."""
    if len(study.objectives) > 1:
        return hypervolume(study)
    return max(t.values[0] for t in study.trials)


def line(found: Sequence[Outcome]) -> str:
    """Average over orders and studies."""
    table = np.array([(o.items, o.volume, o.wrong, o.entered, o.lost) for o in found])
    means = table.mean(axis=0)
    stderr = table[:, 1].std(ddof=1) / np.sqrt(len(table)) if len(table) > 1 else np.nan
    return "".join(f"{x:>9.3f}" for x in (*means[:2], stderr, *means[2:]))


if __name__ == "__main__":
    main()
