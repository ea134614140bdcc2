"""The loop: ask, run, tell, with every worker busy and every step on disk before its effect."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from optuna.trial import FrozenTrial, Trial, TrialState

from evomerge.errors import StudyError
from evomerge.evaluation.racing import Race
from evomerge.execution.protocol import Executor, Failed, Job, Outcome, Pruned, Scored
from evomerge.optuna_internals import storage_of, trial_id
from evomerge.origins import SEARCH
from evomerge.recipe.recipe import Recipe
from evomerge.space.baselines import Baseline
from evomerge.space.protocol import SearchSpace
from evomerge.study.baseline_queue import BaselineQueue
from evomerge.study.drivers import Drivers
from evomerge.study.evaluations import climb_evaluations
from evomerge.study.ledger import Ledger, origin_of
from evomerge.study.log import StudyLog
from evomerge.study.proposals import propose
from evomerge.study.records import TrialRecord
from evomerge.study.rivals import Rivals
from evomerge.study.storage import together
from evomerge.study.timing import Timing

__all__ = ["Budget", "Host", "Search"]

_STARTS = 3  # of one trial, after which the driver was gone each time
_HOPELESS = 10  # a study whose first trials all fail has a fault that more trials will not cure


@dataclass(frozen=True)
class Budget:
    """When a search ends; whichever comes first.

    Attributes:
        trials: Number of finished trials, failed and pruned ones included; those that climb count
            as several, see ``study.evaluations``.
        wall_clock_s: Seconds of searching over all drivers; ``None`` for no limit. Trials in
            flight at that moment are finished.
        n_items: Search items, which the items of a climb are compared with.
    """

    trials: int
    wall_clock_s: float | None = None
    n_items: int = 1


@dataclass(frozen=True)
class Host:
    """The process that a search runs in.

    Attributes:
        log: Hears what is asked and told.
        is_stopping: Tells whether running trials are to be finished, and no more started.
        runs_trials: Whether a trial that ends its process ends this one: it is given up in time.
    """

    log: StudyLog = field(default_factory=lambda: StudyLog(None))
    is_stopping: Callable[[], bool] = lambda: False
    runs_trials: bool = False


class Search:
    """Runs a study until its budget is met; may be stopped anywhere and started again.

    A trial is stored when asked, with its recipe, and again when told. Trials found running at the
    start are those of a driver that died: they are run again under their own number. So are those
    that another driver left behind without having marked them, after a while.

    Args:
        ledger: Of the study, which has its sampler.
        space: Decodes params.
        executor: Where jobs run.
        budget: When to end.
        timing: Where the time goes.
        rivals: What trials race against; ``None``: every trial is scored on all items.
        drivers: Those that the study is shared with; ``None``: there are no others.
        host: This process; absent: nothing is known of it.
        on_told: Called after each finished trial.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: SearchSpace,
        executor: Executor,
        *,
        budget: Budget,
        timing: Timing,
        rivals: Rivals | None = None,
        drivers: Drivers | None = None,
        host: Host | None = None,
        on_told: Callable[[TrialRecord], None] = lambda trial: None,
    ) -> None:
        self._ledger, self._space = ledger, space
        self._executor, self._budget = executor, budget
        self._timing, self._on_told, self._rivals = timing, on_told, rivals
        self._drivers = drivers or Drivers(ledger.study, None)
        host = host or Host()
        self._log, self._is_stopping = host.log, host.is_stopping
        self._runs_here = host.runs_trials
        self._queue = BaselineQueue(ledger, budget.trials)
        self._in_flight: dict[int, Trial] = {}
        self._asked_seconds: dict[int, float] = {}

    def seed(self, baselines: Sequence[Baseline]) -> None:
        """Queue the baselines that the study does not hold yet; see ``BaselineQueue.add``."""
        self._queue.add(baselines)

    def run(self) -> None:
        """Search until the budget is met.

        Raises:
            KeyboardInterrupt: It was to stop, and what ran is finished.
            StudyError: The first trials have all failed, or a baseline that constraints refer to
                has failed twice.
        """
        self._timing.start(self._executor.n_workers)
        try:
            self._run()
        except KeyboardInterrupt:
            self._log.write("stopped", running=sorted(self._in_flight))
            self._forgive()
            raise
        finally:
            self._timing.save()

    def _forgive(self) -> None:
        """Take back the starts of trials that are ended from outside, not by themselves."""
        for trial in self._in_flight.values() if self._runs_here else ():
            self._ledger.start(trial, -1)

    def _run(self) -> None:
        self._restore_rivals()
        interrupted = self._drivers.unfinished()
        while True:
            interrupted += self._drivers.abandoned()
            while len(self._in_flight) < self._executor.n_workers and not self._is_stopping():
                if interrupted:
                    self._restart(interrupted.pop(0))
                elif not (self._is_in_time() and self._start_next()):
                    break
            if self._in_flight:
                if (outcome := self._executor.next_outcome()) is not None:
                    self._finish(outcome)
            elif self._is_stopping():
                raise KeyboardInterrupt
            elif self._drivers.is_waiting:
                self._drivers.wait()
            else:
                self._queue.require_bounds()
                return

    def _restore_rivals(self) -> None:
        if self._rivals is not None:
            trials = self._ledger.records()
            complete = {t.number: t.values for t in trials if t.values and t.is_feasible}
            self._rivals.restore(complete, self._ledger.items)

    def _meet_rivals(self, told: TrialRecord, outcome: Outcome) -> None:
        """Let a complete trial become a rival; only what is feasible may drop others."""
        if self._rivals is None or not isinstance(outcome, Scored) or not told.values:
            return
        if told.origin != SEARCH:
            self._restore_rivals()  # constraints may refer to it, and hold earlier trials to it
        elif told.is_feasible:
            self._rivals.add(told.number, told.values, outcome.scores.items)

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
        self._log.write("asked", trial.number, origin=origin_of(trial))
        self._submit(trial, recipe, time.perf_counter() - started)
        return True

    def _restart(self, frozen: FrozenTrial) -> None:
        with self._timing.measure("ask"):
            if not self._drivers.mark(frozen):
                return
            is_settled = self._ledger.is_settled(frozen)
            opened = self._drivers.reopen if is_settled else self._drivers.open
            trial = opened(trial_id(frozen))  # its stored params stay as they are
            recipe = self._recipe(trial)
        self._log.write("asked", trial.number, origin=origin_of(trial), again=True)
        self._submit(trial, recipe, 0.0)

    def _recipe(self, trial: Trial) -> Recipe:
        with together(storage_of(self._ledger.study)):
            recipe = self._stored_or_drawn(trial)
            if self._runs_here:
                self._ledger.start(trial, 1)
            return recipe

    def _stored_or_drawn(self, trial: Trial) -> Recipe:
        if self._queue.is_repeated(trial):
            self._ledger.give_to_search(trial)
        if (stored := self._ledger.recipe(trial)) is not None:
            if self._is_in_space(trial):
                self._space.suggest(trial)  # registers the params of a queued baseline
            self._settle(trial)
            return stored
        recipe = self._space.recipe(propose(trial, self._space.suggest))
        self._settle(trial)
        self._ledger.asked(trial, recipe)
        return recipe

    def _settle(self, trial: Trial) -> None:
        """Store what a trial may cost; a climb whose end no trial could try is left out."""
        wanted = self._ledger.wanted_climb(trial)
        extra = climb_evaluations(wanted.n_items, self._budget.n_items) if wanted else 0.0
        left = self._budget.trials - self._ledger.evaluations()  # which counts this one as 1
        self._ledger.settle(trial, 1.0 + (extra if extra + 1.0 <= left else 0.0))

    def _is_in_space(self, trial: Trial) -> bool:
        """Tell a trial with params from a baseline that the space cannot express."""
        frozen = self._ledger.trials()[trial.number]
        return bool(frozen.params or frozen.system_attrs.get("fixed_params"))

    def _submit(self, trial: Trial, recipe: Recipe, ask_seconds: float) -> None:
        self._in_flight[trial.number] = trial
        self._asked_seconds[trial.number] = ask_seconds
        may_end_early = origin_of(trial) == SEARCH  # baselines are the yardstick
        race = self._race(trial.number) if may_end_early else None
        climb = self._ledger.climb(trial)
        job = Job(trial.number, recipe, is_gated=may_end_early, race=race, climb=climb)
        if self._runs_here and self._ledger.starts(trial) > _STARTS:
            error = f"it ended the process that ran it {_STARTS} times"
            self._finish(Failed(job, f"{error}, as a crash or the system's memory limit does"))
            return
        self._executor.submit(replace(job, wants_samples=not may_end_early))

    def _race(self, number: int) -> Race | None:
        """Set up a race; none before the baselines are done: rivals may be held to their scores."""
        baselines_are_done = all(origin_of(t) == SEARCH for t in self._in_flight.values())
        if self._rivals is None or not baselines_are_done:
            return None
        return self._rivals.race(number)

    def _finish(self, outcome: Outcome) -> None:
        trial = self._in_flight.pop(outcome.job.trial)
        asked = self._asked_seconds.pop(trial.number)
        self._log_outcome(outcome)
        with self._timing.measure("tell"), together(storage_of(self._ledger.study)):
            told = self._ledger.tell(trial, outcome, asked)
            self._meet_rivals(told, outcome)
        self._keep_time(told)
        self._log.write("told", told.number, state=told.state, values=told.values)
        self._on_told(told)
        self._stop_if_hopeless()
        self._queue.try_again(told.origin)

    def _log_outcome(self, outcome: Outcome) -> None:
        """Write down what a worker returned, before anything is made of it."""
        match outcome:
            case Scored():
                error = outcome.climb_error
                self._log.write("scored", outcome.job.trial, seconds=outcome.seconds, error=error)
            case Pruned():
                reason, seconds = outcome.reason, outcome.seconds
                self._log.write("pruned", outcome.job.trial, seconds=seconds, reason=reason)
            case Failed():
                self._log.write("failed", outcome.job.trial, error=outcome.error)

    def _keep_time(self, told: TrialRecord) -> None:
        for phase in told.seconds.keys() - {"ask"}:  # measured here already
            self._timing.add(phase, told.seconds[phase])
        self._timing.save_now_and_then()

    def _stop_if_hopeless(self) -> None:
        trials = self._ledger.trials()
        if any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials):
            return
        failed = [t for t in trials if t.state == TrialState.FAIL]
        if len(failed) >= min(_HOPELESS, self._budget.trials):
            raise StudyError(
                f"all of the first {len(failed)} trials failed; the first one with: "
                f"{self._ledger.records()[failed[0].number].error or 'no reason given'}"
            )
