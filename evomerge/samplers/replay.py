"""A CMA-ES in step with a study: its state is a function of the store.

A trial records the generation it was drawn in (trial attribute ``pycma:generation``), the study
records which trials ended each generation (study attribute ``pycma:batch:GENERATION``). With the
seed and the trials' values, that gives back every distribution, in whatever order results came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import ConfigDict, Field

from evomerge.samplers.evolution import Evolution, Told
from evomerge.samplers.gene_space import Gene, GeneSpace
from evomerge.samplers.learned import learned_values
from evomerge.samplers.scalarise import draw_preference, tchebycheff
from evomerge.samplers.unit_cube import FloatArray, UnitCube

__all__ = ["PycmaOptions", "Replay"]

_GENERATION = "pycma:generation"
_BATCH = "pycma:batch:"


@dataclass(frozen=True)
class PycmaOptions:
    """Options of CMA-ES.

    Attributes:
        sigma0: First standard deviation, as a share of every gene's range.
        popsize: Results per generation; absent: 4 + 3 ln(axes), rounded down.
    """

    sigma0: Annotated[float, Field(gt=0, le=1)] = 1 / 6
    popsize: Annotated[int, Field(ge=4)] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


class Replay:
    """An evolution, what it was told, and what it was asked.

    Args:
        study: The study to keep in step with.
        space: Its genes.
        options: Options of CMA-ES.
        seed: The study's seed.
    """

    def __init__(self, study: Study, space: GeneSpace, options: PycmaOptions, *, seed: int) -> None:
        self._study = study
        self._space = space
        self._seed = seed
        self._cube = UnitCube(space.searched)
        self._batches: list[list[int]] = []  # trial numbers told, by generation
        self._points: dict[int, FloatArray] = {}  # of every trial drawn here
        self._seen: list[list[float]] = []  # values told, to be minimised
        self._evolution = Evolution(
            self._cube.encode(space.defaults),
            sigma0=options.sigma0,
            popsize=options.popsize,
            min_spreads=self._cube.min_spreads,
            seed=seed,
        )

    def continues(self, study: Study) -> bool:
        """Tell whether the store of a study only goes on from here.

        If not (another study, or another process ended a generation), start a new replay.
        """
        past = range(self._evolution.generation)
        return (
            study is self._study
            and self._recorded()[: len(self._batches)] == self._batches
            and all(
                trial.number in self._points
                for trial in study.get_trials(deepcopy=False)
                if trial.system_attrs.get(_GENERATION) in past
            )
        )

    def ask(self, trial: FrozenTrial) -> dict[str, Gene]:
        """Return a value for every gene that can vary; asked again, the same."""
        self._catch_up()
        if trial.number not in self._points:
            self._study._storage.set_trial_system_attr(
                trial._trial_id, _GENERATION, self._evolution.generation
            )
            self._points[trial.number] = self._evolution.point(trial.number)
        return self._cube.decode(self._points[trial.number])

    def _catch_up(self) -> None:
        """End every generation that the store has ended or has the results for."""
        trials = self._study.get_trials(deepcopy=False)
        recorded = self._recorded()
        while True:
            self._draw_asked(trials)
            generation = self._evolution.generation
            if generation < len(recorded):
                batch = recorded[generation]
            else:
                batch = self._waiting(trials)[: self._evolution.popsize]
                if len(batch) < self._evolution.popsize:
                    return
                self._study._storage.set_study_system_attr(
                    self._study._study_id, f"{_BATCH}{generation}", batch
                )
            self._tell([trials[number] for number in batch])
            self._batches.append(batch)

    def _draw_asked(self, trials: Sequence[FrozenTrial]) -> None:
        for trial in trials:
            if (
                trial.system_attrs.get(_GENERATION) == self._evolution.generation
                and trial.number not in self._points
            ):
                self._points[trial.number] = self._evolution.point(trial.number)

    def _waiting(self, trials: Sequence[FrozenTrial]) -> list[int]:
        """List the trials whose results have not been told."""
        told = {number for batch in self._batches for number in batch}
        chosen_by_others = {
            frozenset(trial.params.items())
            for trial in trials
            if _GENERATION not in trial.system_attrs
        }
        return [
            trial.number
            for trial in trials
            if trial.number not in told
            and trial.state.is_finished()
            and self._space.holds(trial.params)
            and not (
                trial.state is TrialState.FAIL
                and frozenset(trial.params.items()) in chosen_by_others  # run again
            )
        ]

    def _tell(self, trials: Sequence[FrozenTrial]) -> None:
        values = {t.number: v for t in trials if (v := self._minimised(t)) is not None}
        self._seen += values.values()
        losses: dict[int, float] = {}
        if values:
            preference = draw_preference(
                self._seed, self._evolution.generation, len(self._study.directions)
            )
            ranked = tchebycheff(np.array(list(values.values())), np.array(self._seen), preference)
            losses = dict(zip(values, ranked.tolist(), strict=True))
        self._evolution.tell([self._told(t, losses.get(t.number)) for t in trials])

    def _told(self, trial: FrozenTrial, loss: float | None) -> Told:
        point = self._points.get(trial.number)
        if point is None:
            point = self._cube.encode(self._space.complete(trial.params))
            return Told(point, loss, foreign=True)
        return Told(point, loss, foreign=False)

    def _minimised(self, trial: FrozenTrial) -> list[float] | None:
        values = learned_values(trial)
        if values is None:
            return None
        return [
            -value if direction is StudyDirection.MAXIMIZE else value
            for value, direction in zip(values, self._study.directions, strict=True)
        ]

    def _recorded(self) -> list[list[int]]:
        attrs = self._study._storage.get_study_system_attrs(self._study._study_id)
        batches: list[list[int]] = []
        while (key := f"{_BATCH}{len(batches)}") in attrs:
            batches.append(attrs[key])
        return batches
