"""The trials of a study as an own sampler needs them: complete params, values to be minimised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge.samplers.gene_space import GeneSpace, GeneValue
from evomerge.samplers.learned import CONSTRAINTS, learned_stderr, learned_values

__all__ = ["QUEUED", "Result", "Trials", "Tried"]

QUEUED = "fixed_params"  # system attribute of what Optuna's ``enqueue_trial`` made


@dataclass(frozen=True)
class Result:
    """A finished trial in the space.

    Attributes:
        number: Trial number.
        active: The params of the trial: only genes that mattered.
        params: A value for every gene; inactive ones have their default.
        losses: One per objective, to be minimised, all finite; predicted if it was dropped from a
            race. ``None`` if it failed, or was pruned and nothing was learned.
        violation: Sum of what exceeds the constraints, 0 if feasible.
        pruned: Whether it was given up early because it was bad.
        queued: Whether it was given, as baselines and users' seeds are, instead of asked for.
        stderr: Standard errors of predicted losses; ``None``: they were measured.
    """

    number: int
    active: Mapping[str, GeneValue]
    params: Mapping[str, GeneValue]
    losses: tuple[float, ...] | None
    violation: float
    pruned: bool
    queued: bool
    stderr: tuple[float, ...] | None = None


class Tried:
    """All params that are known or about to be.

    Two sets of params are the same if they agree on the genes that matter; a proposal has values
    for the others, too.

    Args:
        actives: The active params of trials, finished or running.
        space: The genes.
    """

    def __init__(self, actives: Iterable[Mapping[str, GeneValue]], space: GeneSpace) -> None:
        self._values: dict[tuple[str, ...], set[tuple[GeneValue, ...]]] = {}
        for active in actives:
            names = tuple(name for name in space.searched if name in active)
            self._values.setdefault(names, set()).add(tuple(active[name] for name in names))

    def __contains__(self, params: Mapping[str, GeneValue]) -> bool:
        """Tell whether a value for every gene that can vary is known."""
        return any(
            tuple(params[name] for name in names) in values
            for names, values in self._values.items()
        )


class Trials:
    """Reads the trials of a study, each finished one once.

    Args:
        space: The genes; trials with other params are left out.
        constrained: Whether to read the trials' constraints.
    """

    def __init__(self, space: GeneSpace, *, constrained: bool) -> None:
        self._space, self._constrained = space, constrained
        self._study: Study | None = None
        self._known: dict[int, Result | None] = {}

    def finished(self, study: Study) -> list[Result]:
        """List the finished trials by number, without failures that were run again."""
        trials = study.get_trials(deepcopy=False)
        found = [self.result(t, study) for t in trials if t.state.is_finished()]
        results = [r for r in found if r is not None]
        again = _run_again([r for r in results if r.losses is None and not r.pruned], trials)
        return [r for r in results if r.number not in again]

    def running(self, study: Study) -> list[dict[str, GeneValue]]:
        """List the active params of the trials that are being evaluated, by number."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [t.params for t in trials if self._space.holds(t.params)]

    def result(self, trial: FrozenTrial, study: Study) -> Result | None:
        """Read one finished trial; ``None`` if its params are no genes of the space."""
        if study is not self._study:
            self._study, self._known = study, {}
        if trial.number not in self._known:
            held = self._space.holds(trial.params)
            self._known[trial.number] = self._read(trial, study) if held else None
        return self._known[trial.number]

    def _read(self, trial: FrozenTrial, study: Study) -> Result:
        excess = trial.user_attrs.get(CONSTRAINTS, ()) if self._constrained else ()
        values = learned_values(trial, constrained=self._constrained)
        stderr = learned_stderr(trial)
        return Result(
            trial.number,
            trial.params,
            self._space.complete(trial.params),
            None if values is None else _minimised(values, study.directions),
            violation=sum(max(0.0, c) for c in excess),
            pruned=trial.state is TrialState.PRUNED,
            queued=bool(trial.system_attrs.get(QUEUED)),  # one that was given back holds none
            stderr=None if stderr is None else tuple(stderr),
        )


def _run_again(failed: Sequence[Result], trials: Sequence[FrozenTrial]) -> set[int]:
    """Find the failures whose params a later trial has: in one pass, whatever number failed."""
    numbers, again = {result.number for result in failed}, set[int]()
    latest: dict[frozenset[tuple[str, GeneValue]], int] = {}  # failure with these params
    for trial in trials[min(numbers, default=len(trials)) :]:
        params = frozenset(trial.params.items())
        if params in latest:
            again.add(latest.pop(params))
        if trial.number in numbers:
            latest[params] = trial.number
    return again


def _minimised(values: Sequence[float], directions: Sequence[StudyDirection]) -> tuple[float, ...]:
    return tuple(
        -value if direction is StudyDirection.MAXIMIZE else value
        for value, direction in zip(values, directions, strict=True)
    )
