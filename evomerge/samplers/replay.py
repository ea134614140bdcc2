"""A generational search in step with a study: its state is a function of the store.

A trial records the generation it was drawn in (trial attribute ``LABEL:generation``), the study
records which trials ended each generation (study attribute ``LABEL:batch:GENERATION``). With the
seed and the trials' values, that gives back every distribution, in whatever order results came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from optuna.study import Study
from optuna.trial import FrozenTrial

from evomerge.optuna_internals import storage_of, study_id, trial_id
from evomerge.samplers.gene_space import GeneSpace, GeneValue
from evomerge.samplers.results import Result, Trials

__all__ = ["Generations", "Replay", "Replayed", "Told"]

Point = TypeVar("Point")


@dataclass(frozen=True)
class Told(Generic[Point]):
    """One result.

    Attributes:
        point: Where it is.
        result: The trial.
        foreign: Whether somebody else chose the point.
    """

    point: Point
    result: Result
    foreign: bool


class Generations(Protocol[Point]):
    """A search by generations. Its state is a function of what was told, in that order."""

    @property
    def generation(self) -> int:
        """Number of the current generation, from 0."""

    def draw(self, number: int, slot: int) -> Point:
        """Draw the point of one trial, the ``slot``-th that asks in this generation."""

    def decode(self, point: Point) -> dict[str, GeneValue]:
        """Return a value for every gene that can vary."""

    def encode(self, result: Result) -> Point:
        """Return the point of a trial that somebody else chose."""

    def ending(self, waiting: Sequence[Told[Point]]) -> Sequence[Told[Point]]:
        """Choose the results that end the generation; none if it goes on."""

    def tell(self, results: Sequence[Told[Point]]) -> None:
        """End the generation."""


class Replayed(Generic[Point]):
    """Proposes params for a ``JointSampler``, with a new replay where the old one does not fit.

    Args:
        start: Makes the search as it is before the first result, for a number of objectives.
        space: The genes.
        label: Prefix of the attributes in the store.
        constrained: Whether trials carry constraints.
    """

    def __init__(
        self,
        start: Callable[[], Generations[Point]],
        space: GeneSpace,
        *,
        label: str,
        constrained: bool,
    ) -> None:
        self._start, self._label = start, label
        self._trials = Trials(space, constrained=constrained)
        self._replay: Replay[Point] | None = None

    def __call__(self, study: Study, trial: FrozenTrial) -> dict[str, GeneValue]:
        """Propose the params of a trial."""
        if self._replay is None or not self._replay.continues(study):
            self._replay = Replay(study, self._start(), self._trials, label=self._label)
        return self._replay.ask(trial)


class Replay(Generic[Point]):
    """A search by generations, what it was told, and what it was asked.

    Args:
        study: The study to keep in step with.
        generations: The search before the first result.
        trials: Reads the study.
        label: Prefix of the attributes in the store.
    """

    def __init__(
        self,
        study: Study,
        generations: Generations[Point],
        trials: Trials,
        *,
        label: str,
    ) -> None:
        self._study, self._generations, self._trials = study, generations, trials
        self._generation_attr, self._batch_attr = f"{label}:generation", f"{label}:batch:"
        self._batches: list[list[int]] = []  # trial numbers told, by generation
        self._points: dict[int, Point] = {}  # of every trial drawn here
        self._read: dict[int, Told[Point]] = {}
        self._n_drawn = 0  # in this generation

    def continues(self, study: Study) -> bool:
        """Tell whether the store of a study only goes on from here.

        If not (another study, or another process ended a generation), start a new replay.
        """
        past = range(self._generations.generation)
        return (
            study is self._study
            and self._recorded()[: len(self._batches)] == self._batches
            and all(
                trial.number in self._points
                for trial in study.get_trials(deepcopy=False)
                if trial.system_attrs.get(self._generation_attr) in past
            )
        )

    def ask(self, trial: FrozenTrial) -> dict[str, GeneValue]:
        """Return a value for every gene that can vary; asked again, the same."""
        self._catch_up()
        if trial.number not in self._points:
            storage_of(self._study).set_trial_system_attr(
                trial_id(trial), self._generation_attr, self._generations.generation
            )
            self._draw(trial.number)
        return self._generations.decode(self._points[trial.number])

    def _draw(self, number: int) -> None:
        self._points[number] = self._generations.draw(number, self._n_drawn)
        self._n_drawn += 1

    def _catch_up(self) -> None:
        """End every generation that the store has ended or has the results for."""
        trials = self._study.get_trials(deepcopy=False)
        recorded, asked = self._recorded(), self._asked(trials)
        while True:
            for number in asked.get(self._generations.generation, ()):
                self._draw(number)
            generation = self._generations.generation
            if generation < len(recorded):
                batch = [self._told(self._result(trials[n])) for n in recorded[generation]]
            else:
                batch = list(self._generations.ending(self._waiting()))
                if not batch:
                    return
                storage_of(self._study).set_study_system_attr(
                    study_id(self._study), f"{self._batch_attr}{generation}", _numbers(batch)
                )
            self._generations.tell(batch)
            self._batches.append(_numbers(batch))
            self._n_drawn = 0

    def _asked(self, trials: Sequence[FrozenTrial]) -> dict[int, list[int]]:
        """List the trials that were asked, and are not drawn here yet, by generation."""
        asked: dict[int, list[int]] = {}
        for trial in trials:
            label = trial.system_attrs.get(self._generation_attr)
            if label is not None and trial.number not in self._points:
                asked.setdefault(label, []).append(trial.number)
        return asked

    def _waiting(self) -> list[Told[Point]]:
        """List the results that have not been told."""
        told = {number for batch in self._batches for number in batch}
        results = self._trials.finished(self._study)
        return [self._told(result) for result in results if result.number not in told]

    def _told(self, result: Result) -> Told[Point]:
        if result.number not in self._read:  # looked at by every ask until its generation ends
            point = self._points.get(result.number)
            if point is None or not self._is_at(result, point):
                told = Told(self._generations.encode(result), result, foreign=True)
            else:
                told = Told(point, result, foreign=False)
            self._read[result.number] = told
        return self._read[result.number]

    def _is_at(self, result: Result, point: Point) -> bool:
        """Tell whether a trial took the params that were drawn for it, as far as they mattered."""
        drawn = self._generations.decode(point)
        return all(drawn.get(name, value) == value for name, value in result.active.items())

    def _result(self, trial: FrozenTrial) -> Result:
        result = self._trials.result(trial, self._study)
        assert result is not None, "only trials in the space were told"
        return result

    def _recorded(self) -> list[list[int]]:
        attrs = storage_of(self._study).get_study_system_attrs(study_id(self._study))
        batches: list[list[int]] = []
        while (key := f"{self._batch_attr}{len(batches)}") in attrs:
            batches.append(attrs[key])
        return batches


def _numbers(batch: Sequence[Told[Point]]) -> list[int]:
    return [told.result.number for told in batch]
