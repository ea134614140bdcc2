"""What trackers are told of a study and of its trials: numbers by name."""

from __future__ import annotations

import math
from dataclasses import replace

from evomerge.analysis.front import hypervolume
from evomerge.config.experiment import Experiment
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Followed", "final_numbers", "settings"]


class Followed:
    """A study as it grows, without reading its folder again for every trial.

    Args:
        record: As earlier drivers left it.
    """

    def __init__(self, record: StudyRecord) -> None:
        finished = tuple(t for t in record.trials if t.state != "running")
        self._record = replace(record, trials=())
        self.earlier = [(trial, self.add(trial)) for trial in finished]
        """Trials of earlier drivers, with what ``add`` gave."""

    def add(self, trial: TrialRecord) -> dict[str, float]:
        """Take a finished trial into account.

        Returns:
            Its objectives, phases (``seconds/NAME``), what it cost (``evaluations``), whether it
            ``failed`` or was ``pruned``, and the ``hypervolume`` so far; numbers that are none are
            left out.
        """
        trials = (*self._record.trials, trial)
        self._record = replace(self._record, trials=trials)
        objectives = zip(self._record.objectives, trial.values, strict=False)  # none if it failed
        numbers = {
            **{objective.name: value for objective, value in objectives},
            **{f"seconds/{phase}": value for phase, value in trial.seconds.items()},
            "evaluations": trial.evaluations,
            "failed": float(trial.state == "failed"),
            "pruned": float(trial.state == "pruned"),
            "hypervolume": hypervolume(self._record),
        }
        return {name: value for name, value in numbers.items() if math.isfinite(value)}


def settings(experiment: Experiment) -> dict[str, str | int]:
    """Say in a few words what a study is about."""
    models = experiment.models
    return {
        "base": models.base,
        "experts": ", ".join(models.experts),
        "objectives": ", ".join(f"{o.task}/{o.metric}" for o in experiment.objectives),
        "sampler": experiment.sampler.name,
        "trials": experiment.budget.trials,
        "seed": experiment.seed,
    }


def final_numbers(record: StudyRecord) -> dict[str, float]:
    """Give the held-out scores of what was chosen: ``validation/NAME`` and ``test/NAME``."""
    return {
        f"{final.split}/{objective.name}": value
        for final in record.finals
        if final.chosen
        for objective, value in zip(record.objectives, final.values, strict=True)
        if math.isfinite(value)
    }
