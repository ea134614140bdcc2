"""The ledger of a study: what is kept with its Optuna trials, written and read in this file alone.

A trial is written twice, when it is asked and when it is told; what is written together is stored
together, see ``storage.together``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from evomerge.errors import StudyError
from evomerge.evaluation.scores import ItemScore, MetricValue, Sample, Verdict
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Climb, Failed, Outcome, Pruned, Scored
from evomerge.models.reference import ModelRef, reference_data
from evomerge.optuna_internals import fix_params, storage_of, trial_id
from evomerge.origins import SEARCH
from evomerge.recipe.files import stored_recipe
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Recipe
from evomerge.samplers.chains import LINK
from evomerge.samplers.learned import CLIMB, CLIMB_ERROR, CLIMBED, CONSTRAINTS, PARTIAL
from evomerge.space.baselines import Baseline
from evomerge.study.collecting import without_collecting
from evomerge.study.constraints import Constraint, violations
from evomerge.study.evaluations import summed
from evomerge.study.json_files import MALFORMED
from evomerge.study.outcomes import checked_outcome
from evomerge.study.packed import Unread, packed, unpacked
from evomerge.study.proposals import is_proposed
from evomerge.study.records import Objective, Partial, TrialRecord, TrialStateName

__all__ = ["DRIVER", "CostSoFar", "Ledger", "evaluations_of", "origin_of"]

DRIVER = "driver"
"""Trial user attribute: who runs it. A driver that comes back runs only its own again."""

# Names of the others, but for those that samplers read, too.
_ORIGIN = "origin"
_RECIPE = "recipe"
_STDERR = "stderr"
_N_ITEMS = "n_items"
_N_SCORES = "n_scores"
_SECONDS = "seconds"
_SAMPLES = "samples"  # an item by objective; only of baselines
_DEVICE = "device"  # what the candidate ran on when it was scored
_STARTS = "starts"  # only of trials that run in the driver's own process
_ERROR = "error"
_TRACEBACK = "traceback"
_MEASURED = "measured"  # value per constraint
_EVALUATIONS = "evaluations"  # stored once all that the sampler says of a trial is

_STATES: Mapping[TrialState, TrialStateName] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


_WRONG = (*MALFORMED, zlib.error)

_Measured = list[tuple[str, list[float]]]  # baselines: origin, and value per constraint


def origin_of(trial: Trial | FrozenTrial) -> str:
    """Say where the params of a trial come from: of a baseline as in ``origins``, or ``search``."""
    return str(trial.user_attrs.get(_ORIGIN, SEARCH))


def evaluations_of(trial: FrozenTrial) -> float:
    """Count what a trial costs; of one that runs, what it may cost."""
    return float(trial.user_attrs.get(_EVALUATIONS, 1.0))


class CostSoFar:
    """Adds up what trials cost; those at the start that are finished, which stay so, only once."""

    def __init__(self) -> None:
        self._n, self._cost = 0, 0.0

    def rest(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """List the trials from the first on that is not finished; of all trials of a study."""
        while self._n < len(trials) and trials[self._n].state.is_finished():
            self._cost += evaluations_of(trials[self._n])
            self._n += 1
        return trials[self._n :]

    def total(self, trials: Sequence[FrozenTrial], *, with_queued: bool = True) -> float:
        """Add up the cost of all trials of a study."""
        rest = self.rest(trials)
        counted = [t for t in rest if with_queued or t.state != TrialState.WAITING]
        return summed([self._cost, *map(evaluations_of, counted)])


class Ledger:
    """Writes down what becomes of a study's trials, and reads it back.

    Args:
        study: The Optuna study.
        objectives: In the order of the study's directions.
        items: Where item scores go.
        constraints: What trials must keep, in the order of their violations.
        models: Where base and experts are now, by name; absent: where they were.
    """

    def __init__(
        self,
        study: optuna.Study,
        objectives: Sequence[Objective],
        items: ItemStore,
        constraints: Sequence[Constraint] = (),
        models: Mapping[str, ModelRef] = {},
    ) -> None:
        self.study, self.objectives, self.items = study, objectives, items
        self.constraints, self._models = constraints, models
        self._cost_so_far = CostSoFar()

    def trials(self) -> list[FrozenTrial]:
        """List the trials as Optuna has them, by number, queued ones included."""
        return self.study.get_trials(deepcopy=False)

    def records(self) -> tuple[TrialRecord, ...]:
        """Read every trial that has been asked, by number.

        Constraints are evaluated anew: a trial told before the baselines that bound it were known
        is held to them, too.
        """
        trials = [t for t in self.trials() if t.state != TrialState.WAITING]
        with _as_written("of the baselines"):
            known = self._measured_baselines(trials)
        with without_collecting():
            return tuple(self._record(trial, known) for trial in trials)

    def recipe(self, trial: Trial) -> Recipe | None:
        """Read the recipe that was stored with a trial; ``None`` before it was asked for."""
        data = trial.user_attrs.get(_RECIPE)
        return stored_recipe(self._located(unpacked(data)), trial.number) if data else None

    def evaluations(self) -> float:
        """Add up what all trials cost, queued ones included; see ``study.evaluations``."""
        return self._cost_so_far.total(self.trials())

    def is_settled(self, trial: Trial | FrozenTrial) -> bool:
        """Tell whether a sampler has said all it has to say of a trial, and that is stored."""
        return _EVALUATIONS in trial.user_attrs or is_proposed(trial)

    def wanted_climb(self, trial: Trial) -> Climb | None:
        """Read the climb that a sampler wants of a trial; ``None`` if it starts elsewhere."""
        stored = self.trials()[trial.number]  # what a sampler stores is not seen through a trial
        data = stored.user_attrs.get(CLIMB)
        if data is None or not stored.params:
            return None
        climb = Climb.read(data)
        starts_here = all(climb.params.get(name) == v for name, v in stored.params.items())
        return climb if starts_here else None

    def climb(self, trial: Trial) -> Climb | None:
        """Read the climb that a trial takes; ``None`` without one, or if it was not granted."""
        granted = trial.user_attrs.get(_EVALUATIONS, 1.0) > 1.0
        return self.wanted_climb(trial) if granted else None

    def settle(self, trial: Trial, evaluations: float) -> None:
        """Write down what a trial may cost, once its params are stored; it stays what it was."""
        if _EVALUATIONS not in trial.user_attrs:
            trial.set_user_attr(_EVALUATIONS, evaluations)

    def starts(self, trial: Trial) -> int:
        """Count the starts of a trial that runs in the driver's own process."""
        return int(trial.user_attrs.get(_STARTS, 0))

    def start(self, trial: Trial, change: int) -> None:
        """Count a start, before it, or take one back."""
        trial.set_user_attr(_STARTS, self.starts(trial) + change)

    def queue(self, baseline: Baseline) -> None:
        """Let a baseline be the trial that is asked next, after others that are queued."""
        attrs = {_ORIGIN: baseline.origin, _RECIPE: packed(baseline.recipe.as_data())}
        self.study.enqueue_trial(dict(baseline.params or {}), user_attrs=attrs)

    def give_to_search(self, trial: Trial) -> None:
        """Let a trial that was queued as a baseline be one of the search."""
        storage_of(self.study).set_trial_system_attr(trial_id(trial), "fixed_params", {})
        fix_params(trial, {})
        trial.set_user_attr(_RECIPE, {})
        trial.set_user_attr(_ORIGIN, SEARCH)  # last: killed before, it is repeated still

    def asked(self, trial: Trial, recipe: Recipe) -> None:
        """Write down what a trial of the search will try."""
        trial.set_user_attr(_ORIGIN, SEARCH)
        trial.set_user_attr(_RECIPE, packed(recipe.as_data()))

    def tell(self, trial: Trial, outcome: Outcome, ask_seconds: float) -> TrialRecord:
        """Write down what became of a trial, and tell the study.

        Args:
            trial: Asked, and not told yet.
            outcome: Of its job; scores that are missing or no numbers count as a failure.
            ask_seconds: How long the ask took.

        Returns:
            The trial, held to the constraints as far as they are known.
        """
        match checked_outcome(outcome, [*self.objectives, *self.constraints]):
            case Scored() as scored:
                self._tell_scored(trial, scored, ask_seconds)
            case Pruned() as pruned:
                self._tell_pruned(trial, pruned, ask_seconds)
            case Failed(error=error, traceback=traceback):
                trial.set_user_attr(_ERROR, error)
                trial.set_user_attr(_TRACEBACK, traceback)
                self._write_evaluations(trial, outcome)
                self.study.tell(trial, state=TrialState.FAIL)
        trials = self.trials()
        return self._record(trials[trial.number], self._measured_baselines(trials))

    def _tell_scored(self, trial: Trial, scored: Scored, ask_seconds: float) -> None:
        self._write_items(trial, scored.job.split, scored.scores.items, scored.scores.verdicts)
        metrics = [scored.scores.metrics[o.task][o.metric] for o in self.objectives]
        trial.set_user_attr(_STDERR, [None if math.isnan(m.stderr) else m.stderr for m in metrics])
        trial.set_user_attr(_N_ITEMS, [m.n for m in metrics])
        trial.set_user_attr(_DEVICE, scored.device)
        if samples := _objective_samples(self.objectives, scored.scores.samples):
            trial.set_user_attr(_SAMPLES, samples)
        trial.set_user_attr(_SECONDS, {"ask": ask_seconds, **scored.seconds})
        self._write_climbed(trial, scored)
        self._write_constraints(trial, scored)
        self.study.tell(trial, [m.value for m in metrics])

    def _tell_pruned(self, trial: Trial, pruned: Pruned, ask_seconds: float) -> None:
        trial.set_user_attr(_ERROR, pruned.reason)
        if pruned.estimates:
            self._write_items(trial, pruned.job.split, pruned.items, pruned.verdicts)
            trial.set_user_attr(PARTIAL, _as_data(pruned.estimates))
        trial.set_user_attr(_SECONDS, {"ask": ask_seconds, **pruned.seconds})
        self._write_evaluations(trial, pruned)
        self.study.tell(trial, state=TrialState.PRUNED)

    def _write_climbed(self, trial: Trial, scored: Scored) -> None:
        if scored.climbed is not None:
            trial.set_user_attr(CLIMBED, asdict(scored.climbed))
        if scored.climb_error is not None:
            trial.set_user_attr(CLIMB_ERROR, scored.climb_error)
        self._write_evaluations(trial, scored)

    def _write_evaluations(self, trial: Trial, outcome: Outcome) -> None:
        """Count the items that a climb went through, where that is less than was asked for.

        How far one came that failed is not known, so it counts in full.
        """
        asked = outcome.job.climb
        if asked is None or (isinstance(outcome, Scored) and outcome.climb_error is not None):
            return
        climbed = outcome.climbed if isinstance(outcome, Scored) else None
        share = 0.0 if climbed is None else climbed.n_items / asked.n_items
        extra = trial.user_attrs[_EVALUATIONS] - 1.0
        trial.set_user_attr(_EVALUATIONS, 1.0 + share * extra)

    def _write_items(
        self, trial: Trial, split: str, items: Sequence[ItemScore], verdicts: Sequence[Verdict]
    ) -> None:
        self.items.write(trial.number, split, items)
        self.items.note(trial.number, split, verdicts)
        trial.set_user_attr(_N_SCORES, len(items))

    def _write_constraints(self, trial: Trial, scored: Scored) -> None:
        """Write down what was measured, and what a sampler is told of it now and for good.

        Whoever replays the study must tell it the same; people are shown ``_violations``.
        """
        if not self.constraints:
            return
        metrics = scored.scores.metrics
        measured = [metrics[c.task][c.metric].value for c in self.constraints]
        known = self._measured_baselines(self.trials())
        trial.set_user_attr(_MEASURED, measured)
        trial.set_user_attr(CONSTRAINTS, list(violations(self.constraints, measured, known)))

    def _violations(self, trial: FrozenTrial, known: _Measured) -> tuple[float, ...]:
        """Hold a trial to its constraints by the baselines that are known by now."""
        measured = trial.user_attrs.get(_MEASURED)
        return () if measured is None else violations(self.constraints, measured, known)

    def _measured_baselines(self, trials: Iterable[FrozenTrial]) -> _Measured:
        """List the baselines that constraints may refer to: origin, and value per constraint."""
        if not self.constraints:
            return []
        return [
            (origin_of(trial), trial.user_attrs[_MEASURED])
            for trial in trials
            if trial.state == TrialState.COMPLETE
            and _MEASURED in trial.user_attrs
            and origin_of(trial) != SEARCH
        ]

    def _record(self, trial: FrozenTrial, known: _Measured) -> TrialRecord:
        try:  # no ``with``, which for 100,000 trials takes as long as half of the reading
            return self._read(trial, known)
        except _WRONG as err:
            raise _damaged(f"of trial {trial.number}") from err

    def _read(self, trial: FrozenTrial, known: _Measured) -> TrialRecord:
        attrs: dict[str, Any] = trial.user_attrs
        state = _STATES[trial.state]
        is_complete = state == "complete"
        return TrialRecord(
            number=trial.number,
            state=state,
            origin=origin_of(trial),
            values=self._estimates(trial.values) if is_complete else (),
            stderr=self._estimates(attrs.get(_STDERR)) if is_complete else (),
            params=Unread(_params, trial),
            recipe=Unread(self._recipe, trial),
            seconds=attrs.get(_SECONDS, {}),
            error=attrs.get(_ERROR),
            started=trial.datetime_start,
            finished=trial.datetime_complete,
            n_items=tuple([int(n) for n in attrs.get(_N_ITEMS, ())]) if is_complete else (),
            partial=_partial(attrs[PARTIAL]) if PARTIAL in attrs else None,
            violations=self._violations(trial, known),
            n_scores=int(attrs.get(_N_SCORES, 0)) if state != "running" else 0,
            driver=attrs.get(DRIVER),
            device=attrs.get(_DEVICE),
            samples=_samples(attrs[_SAMPLES]) if _SAMPLES in attrs else {},
            evaluations=evaluations_of(trial),
            has_climbed=CLIMBED in attrs,
            climb_error=attrs.get(CLIMB_ERROR),
            pull=_pull(trial.system_attrs[LINK]) if LINK in trial.system_attrs else None,
        )

    def _estimates(self, values: Sequence[float | None] | None) -> tuple[float, ...]:
        """Read a number per objective; none are known of trials that somebody else told."""
        given = [None] * len(self.objectives) if values is None else values
        found = tuple([math.nan if value is None else float(value) for value in given])
        if len(found) != len(self.objectives):
            raise ValueError(f"expected {len(self.objectives)} numbers, got {len(found)}")
        return found

    def _recipe(self, trial: FrozenTrial) -> Mapping[str, Any]:
        with _as_written(f"of trial {trial.number}"):
            return self._located(unpacked(trial.user_attrs.get(_RECIPE) or {}))

    def _located(self, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
        """Point a stored recipe to where its models are now: they may have moved since."""
        models, moved = self._models, dict[str, Any]()
        if BASE in recipe.keys() & models.keys():
            moved[BASE] = models[BASE]
        if "experts" in recipe:
            named = recipe["experts"]
            known = {name: reference_data(models[name]) for name in named if name in models}
            moved["experts"] = {**named, **known}
        return {**recipe, **moved}


@contextmanager
def _as_written(of: str) -> Iterator[None]:
    """Say that a stored record is damaged, where the block finds what was never written."""
    try:
        yield
    except _WRONG as err:
        raise _damaged(of) from err


def _damaged(of: str) -> StudyError:
    return StudyError(
        f"what is stored {of} is damaged: its content has another form than it was written in; "
        "restore the study's journal or database"
    )


def _objective_samples(
    objectives: Sequence[Objective], samples: Mapping[str, Sample]
) -> dict[str, dict[str, str]]:
    """Choose a sample for each objective, as plain data: of its task, or the first of its group."""
    found = {}
    for objective in objectives:
        own = (task for task in samples if task.startswith(objective.task))
        task = objective.task if objective.task in samples else next(own, None)
        if task is not None:
            found[objective.name] = asdict(samples[task])
    return found


def _params(trial: FrozenTrial) -> Mapping[str, Any]:
    return trial.params


def _samples(attr: Mapping[str, Mapping[str, str]]) -> dict[str, Sample]:
    return {name: Sample(**sample) for name, sample in attr.items()}


def _pull(link: Mapping[str, Any]) -> float | None:
    """Read the pull of the climb that led a trial where it is, all the way or half of it."""
    return None if link.get("after") is None else link.get("pull")


def _partial(attr: dict[str, Any]) -> Partial:
    return Partial(tuple(attr["values"]), tuple(attr["stderr"]), tuple(attr["n_items"]))


def _as_data(estimates: Sequence[MetricValue]) -> dict[str, list[float]]:
    return {
        "values": [e.value for e in estimates],
        "stderr": [e.stderr for e in estimates],
        "n_items": [e.n for e in estimates],
    }
