"""The loop: ask, run, tell, with every worker busy and every step on disk before its effect."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from evomerge.errors import StudyError
from evomerge.evaluation.racing import Race
from evomerge.evaluation.scores import ItemScore, MetricValue
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Executor, Failed, Job, Outcome, Pruned, Scored
from evomerge.models.reference import ModelRef
from evomerge.optuna_internals import storage_of, trial_id
from evomerge.origins import SEARCH
from evomerge.recipe.files import recipe_from_data
from evomerge.recipe.recipe import Recipe
from evomerge.space.baselines import Baseline
from evomerge.space.protocol import SearchSpace
from evomerge.study.baseline_queue import BaselineQueue
from evomerge.study.constraints import Constraint, violations
from evomerge.study.drivers import Drivers
from evomerge.study.outcomes import checked_outcome
from evomerge.study.proposals import propose
from evomerge.study.records import Objective
from evomerge.study.rivals import Rivals
from evomerge.study.storage import together
from evomerge.study.timing import Timing
from evomerge.study.trials import (
    CONSTRAINTS,
    DEVICE,
    ERROR,
    MEASURED,
    N_ITEMS,
    N_SCORES,
    ORIGIN,
    PARTIAL,
    RECIPE,
    SAMPLES,
    SECONDS,
    STDERR,
    TRACEBACK,
    located_recipe,
    measured_baselines,
    objective_samples,
    trial_records,
)

__all__ = ["Budget", "Search"]

_HOPELESS = 10  # a study whose first trials all fail has a fault that more trials will not cure


@dataclass(frozen=True)
class Budget:
    """When a search ends; whichever comes first.

    Attributes:
        trials: Number of finished trials, failed and pruned ones included.
        wall_clock_s: Seconds of searching over all drivers; ``None`` for no limit. Trials in
            flight at that moment are finished.
    """

    trials: int
    wall_clock_s: float | None = None


class Search:
    """Runs a study until its budget is met; may be stopped anywhere and started again.

    A trial is stored when asked, with its recipe, and again when told. Trials found running at the
    start are those of a driver that died: they are run again under their own number. So are those
    that another driver left behind without having marked them, after a while.

    Args:
        study: Optuna study with its sampler.
        space: Decodes params.
        objectives: In the order of the study's directions.
        executor: Where jobs run.
        budget: When to end.
        items: Where item scores go.
        timing: Where the time goes.
        constraints: What trials must keep; measured with every trial, told to the sampler.
        rivals: What trials race against; ``None``: every trial is scored on all items.
        drivers: Those that the study is shared with; absent: none.
        models: Where base and experts are now, by name; absent: where they were.
        on_told: Called after each finished trial.
    """

    def __init__(  # noqa: PLR0913  each is a part of its own
        self,
        study: optuna.Study,
        space: SearchSpace,
        objectives: Sequence[Objective],
        executor: Executor,
        *,
        budget: Budget,
        items: ItemStore,
        timing: Timing,
        constraints: Sequence[Constraint] = (),
        rivals: Rivals | None = None,
        drivers: Drivers | None = None,
        models: Mapping[str, ModelRef] = {},
        on_told: Callable[[FrozenTrial], None] = lambda trial: None,
    ) -> None:
        self._study, self._space, self._objectives = study, space, objectives
        self._executor, self._budget = executor, budget
        self._items, self._timing, self._on_told = items, timing, on_told
        self._constraints, self._rivals, self._models = constraints, rivals, models
        self._drivers = drivers or Drivers(study, None)
        self._queue = BaselineQueue(study, constraints, budget.trials)
        self._in_flight: dict[int, Trial] = {}
        self._asked_seconds: dict[int, float] = {}

    def seed(self, baselines: Sequence[Baseline]) -> None:
        """Queue the baselines that the study does not hold yet; see ``BaselineQueue.add``."""
        self._queue.add(baselines)

    def run(self) -> None:
        """Search until the budget is met.

        Raises:
            StudyError: The first trials have all failed, or a baseline that constraints refer to
                has failed twice.
        """
        self._timing.start(self._executor.n_workers)
        try:
            self._run()
        finally:
            self._timing.save()

    def _run(self) -> None:
        self._restore_rivals()
        interrupted = self._drivers.unfinished()
        while True:
            interrupted += self._drivers.abandoned()
            while len(self._in_flight) < self._executor.n_workers:
                if interrupted:
                    self._restart(interrupted.pop(0))
                elif not (self._is_in_time() and self._start_next()):
                    break
            if self._in_flight:
                self._finish(self._executor.next_outcome())
            elif self._drivers.is_waiting:
                self._drivers.wait()
            else:
                self._queue.require_bounds()
                return

    def _restore_rivals(self) -> None:
        if self._rivals is not None:
            trials = trial_records(self._study, self._constraints)
            complete = {t.number: t.values for t in trials if t.values and t.is_feasible}
            self._rivals.restore(complete, self._items)

    def _meet_rivals(self, trial: Trial, scored: Scored, values: Sequence[float]) -> None:
        """Let a complete trial become a rival; only what is feasible may drop others."""
        if self._rivals is None:
            return
        if trial.user_attrs.get(ORIGIN) != SEARCH:
            self._restore_rivals()  # constraints may refer to it, and hold earlier trials to it
        elif all(excess <= 0 for excess in trial.user_attrs.get(CONSTRAINTS, ())):
            self._rivals.add(trial.number, values, scored.scores.items)

    def _is_in_time(self) -> bool:
        limit = self._budget.wall_clock_s
        return limit is None or self._timing.elapsed < limit

    def _start_next(self) -> bool:
        """Start the next trial; ``False`` if the budget is used up."""
        started = time.perf_counter()
        with self._timing.measure("ask"):
            trial = self._drivers.ask(self._budget.trials)
            if trial is None:
                return False
            recipe = self._recipe(trial)
        self._submit(trial, recipe, time.perf_counter() - started)
        return True

    def _restart(self, frozen: FrozenTrial) -> None:
        with self._timing.measure("ask"):
            if not self._drivers.mark(frozen):
                return
            trial = self._drivers.open(trial_id(frozen))  # its stored params stay as they are
            recipe = self._recipe(trial)
        self._submit(trial, recipe, 0.0)

    def _recipe(self, trial: Trial) -> Recipe:
        with together(storage_of(self._study)):
            return self._stored_or_drawn(trial)

    def _stored_or_drawn(self, trial: Trial) -> Recipe:
        if self._queue.is_repeated(trial):
            self._queue.give_to_search(trial)
        if data := trial.user_attrs.get(RECIPE):
            if self._is_in_space(trial):
                self._space.suggest(trial)  # registers the params of a queued baseline
            stored = located_recipe(data, self._models)
            return recipe_from_data(stored, f"trial {trial.number}")
        recipe = self._space.recipe(propose(trial, self._space.suggest))
        trial.set_user_attr(ORIGIN, SEARCH)
        trial.set_user_attr(RECIPE, recipe.as_data())
        return recipe

    def _is_in_space(self, trial: Trial) -> bool:
        """Tell a trial with params from a baseline that the space cannot express."""
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        return bool(frozen.params or frozen.system_attrs.get("fixed_params"))

    def _submit(self, trial: Trial, recipe: Recipe, ask_seconds: float) -> None:
        self._in_flight[trial.number] = trial
        self._asked_seconds[trial.number] = ask_seconds
        may_end_early = trial.user_attrs.get(ORIGIN) == SEARCH  # baselines are the yardstick
        race = self._race(trial.number) if may_end_early else None
        job = Job(trial.number, recipe, is_gated=may_end_early, race=race)
        self._executor.submit(replace(job, wants_samples=not may_end_early))

    def _race(self, number: int) -> Race | None:
        """Set up a race; none before the baselines are done: rivals may be held to their scores."""
        origins = [trial.user_attrs.get(ORIGIN) for trial in self._in_flight.values()]
        if self._rivals is None or any(origin != SEARCH for origin in origins):
            return None
        return self._rivals.race(number)

    def _finish(self, outcome: Outcome) -> None:
        trial = self._in_flight.pop(outcome.job.trial)
        asked = self._asked_seconds.pop(trial.number)
        with self._timing.measure("tell"), together(storage_of(self._study)):
            match checked_outcome(outcome, [*self._objectives, *self._constraints]):
                case Scored() as scored:
                    self._tell_scores(trial, scored, asked)
                case Pruned() as pruned:
                    self._tell_pruned(trial, pruned, asked)
                case Failed(error=error, traceback=traceback):
                    trial.set_user_attr(ERROR, error)
                    trial.set_user_attr(TRACEBACK, traceback)
                    self._study.tell(trial, state=TrialState.FAIL)
        self._timing.save_now_and_then()
        self._on_told(self._study.get_trials(deepcopy=False)[trial.number])
        self._stop_if_hopeless()
        self._queue.try_again(trial.user_attrs[ORIGIN])

    def _tell_scores(self, trial: Trial, scored: Scored, ask_seconds: float) -> None:
        self._write_items(trial, scored.job.split, scored.scores.items)
        metrics = [scored.scores.metrics[o.task][o.metric] for o in self._objectives]
        trial.set_user_attr(STDERR, [None if math.isnan(m.stderr) else m.stderr for m in metrics])
        trial.set_user_attr(N_ITEMS, [m.n for m in metrics])
        trial.set_user_attr(DEVICE, scored.device)
        if samples := objective_samples(self._objectives, scored.scores.samples):
            trial.set_user_attr(SAMPLES, samples)
        self._keep_seconds(trial, {"ask": ask_seconds, **scored.seconds})
        self._store_constraints(trial, scored)
        values = [m.value for m in metrics]
        self._study.tell(trial, values)
        self._meet_rivals(trial, scored, values)

    def _tell_pruned(self, trial: Trial, pruned: Pruned, ask_seconds: float) -> None:
        trial.set_user_attr(ERROR, pruned.reason)
        if pruned.estimates:
            self._write_items(trial, pruned.job.split, pruned.items)
            trial.set_user_attr(PARTIAL, _as_data(pruned.estimates))
        self._keep_seconds(trial, {"ask": ask_seconds, **pruned.seconds})
        self._study.tell(trial, state=TrialState.PRUNED)

    def _write_items(self, trial: Trial, split: str, items: Sequence[ItemScore]) -> None:
        self._items.write(trial.number, split, items)
        trial.set_user_attr(N_SCORES, len(items))

    def _keep_seconds(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        trial.set_user_attr(SECONDS, dict(seconds))
        for phase in seconds.keys() - {"ask"}:  # measured here already
            self._timing.add(phase, seconds[phase])

    def _store_constraints(self, trial: Trial, scored: Scored) -> None:
        if not self._constraints:
            return
        metrics = scored.scores.metrics
        measured = [metrics[c.task][c.metric].value for c in self._constraints]
        known = measured_baselines(self._study.get_trials(deepcopy=False))
        trial.set_user_attr(MEASURED, measured)
        trial.set_user_attr(CONSTRAINTS, list(violations(self._constraints, measured, known)))

    def _stop_if_hopeless(self) -> None:
        finished = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
        failed = [t for t in finished if t.state == TrialState.FAIL]
        if len(failed) == len(finished) >= min(_HOPELESS, self._budget.trials):
            raise StudyError(
                f"all of the first {len(failed)} trials failed; the first one with: "
                f"{failed[0].user_attrs.get(ERROR, 'no reason given')}"
            )


def _as_data(estimates: Sequence[MetricValue]) -> dict[str, list[float]]:
    return {
        "values": [e.value for e in estimates],
        "stderr": [e.stderr for e in estimates],
        "n_items": [e.n for e in estimates],
    }
