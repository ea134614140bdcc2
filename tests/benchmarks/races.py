"""Races replayed on the item scores of real searches: what they save, what they cost.

    python -m tests.benchmarks.races STUDY...

Each study must have been run with ``race: off``, so that every item of every trial is known. Its
trials are raced again, in the order in which they were run, for ten orders of the items. The search
itself is not repeated: what a sampler would have asked after a drop is not in the study.

Printed per setting, means over the orders: item evaluations against all of them; hypervolume
against that of the whole study; of the trials that were dropped, the share that would have entered
the front at that moment (what ``error_rate`` bounds); of the study's final front, the share lost.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evomerge.analysis.front import complete, front, hypervolume
from evomerge.config.reading import read_study
from evomerge.evaluation.racing import RaceRules
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord, TrialRecord
from evomerge.study.rivals import Rivals

N_ORDERS = 10
SETTINGS = {
    "careful": RaceRules(),
    "fast": RaceRules(error_rate=0.1, tolerance=0.5),
}


@dataclass(frozen=True)
class Outcome:
    """What racing did to one study with one order of its items."""

    items: float
    hypervolume: float
    wrong: float
    lost: float


def main() -> None:
    """Print one line per study and setting."""
    print(f"{'study':<24}{'race':<10}{'items':>8}{'volume':>8}{'wrong':>8}{'lost':>8}")
    for path in sys.argv[1:]:
        folder = StudyFolder(Path(path))
        study, scores = read_study(folder), read_scores(folder)
        for objectives in objective_sets(study):
            part = only(study, objectives)
            name = f"{folder.root.name} ({len(objectives)} obj.)"
            for label, rules in SETTINGS.items():
                found = [race(part, scores, rules, seed) for seed in range(N_ORDERS)]
                means = np.mean([(o.items, o.hypervolume, o.wrong, o.lost) for o in found], axis=0)
                print(f"{name:<24}{label:<10}" + "".join(f"{mean:>8.3f}" for mean in means))


def read_scores(folder: StudyFolder) -> Mapping[int, Sequence[ItemScore]]:
    """Read the item scores of every trial on the search split."""
    table = ItemStore(folder.items).read()
    table = table[table["split"] == "search"]
    return {
        int(number): [
            ItemScore(*row)
            for row in rows[["task", "item", "metric", "score"]].itertuples(index=False)
        ]
        for number, rows in table.groupby("trial")
    }


def objective_sets(study: StudyRecord) -> list[list[int]]:
    """All objectives, the first two, the first one."""
    return [list(range(n)) for n in range(len(study.objectives), 0, -1)]


def only(study: StudyRecord, indices: Sequence[int]) -> StudyRecord:
    """Leave some of the objectives."""
    trials = [
        replace(t, values=tuple(t.values[i] for i in indices), stderr=(0.0,) * len(indices))
        for t in complete(study)
    ]
    return replace(study, objectives=tuple(study.objectives[i] for i in indices), trials=trials)


def race(
    study: StudyRecord, scores: Mapping[int, Sequence[ItemScore]], rules: RaceRules, seed: int
) -> Outcome:
    """Race the trials of a study."""
    keys = {(o.task, o.metric) for o in study.objectives}
    known = {n: [s for s in found if (s.task, s.metric) in keys] for n, found in scores.items()}
    rungs = cut(known[study.trials[0].number], rules, seed)
    rivals, kept, dropped, used = Rivals(study.objectives, rules), [], [], 0
    for trial in study.trials:
        mine = known[trial.number]
        setup = rivals.race(trial.number) if trial.origin == "search" else None
        looks = [[s for s in mine if (s.task, s.item) in rung] for rung in rungs] if setup else []
        lost = next((look for look in looks if setup is not None and setup.drop(look)), None)
        used += len(mine if lost is None else lost)
        if lost is None:
            kept.append(trial)
            rivals.add(trial.number, trial.values, mine)
        else:
            dropped.append(is_on_front(trial, replace(study, trials=(*kept, trial))))
    whole, raced = front(study), replace(study, trials=tuple(kept))
    return Outcome(
        items=used / sum(len(known[t.number]) for t in study.trials),
        hypervolume=volume(raced, study) / volume(study, study),
        wrong=sum(dropped) / max(1, len(dropped)),
        lost=sum(t not in kept for t in whole) / len(whole),
    )


def cut(scores: Sequence[ItemScore], rules: RaceRules, seed: int) -> list[set[tuple[str, int]]]:
    """Choose the items of each rung."""
    generator = np.random.default_rng(seed)
    rungs: list[set[tuple[str, int]]] = [set() for _ in rules.rungs]
    for task in sorted({s.task for s in scores}):
        order = generator.permutation([s.item for s in scores if s.task == task])
        for rung, share in zip(rungs, rules.rungs, strict=True):
            rung |= {(task, int(item)) for item in order[: int(np.ceil(share * len(order)))]}
    return rungs


def is_on_front(trial: TrialRecord, study: StudyRecord) -> bool:
    """Tell whether a trial is non-dominated by its scores on all items."""
    return trial in front(study)


def volume(study: StudyRecord, scale: StudyRecord) -> float:
    """Measure the hypervolume; one objective alone has none worth the name: its best value."""
    if len(scale.objectives) > 1:
        return hypervolume(study)
    return max(t.values[0] for t in study.trials)


if __name__ == "__main__":
    main()
