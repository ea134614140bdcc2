"""How far a study is, and where its time goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from evomerge.analysis.front import hypervolume
from evomerge.study.records import StudyRecord, TrialStateName
from evomerge.study.timing import utilisation

__all__ = ["Status", "items_saved", "study_status"]

_STATES: tuple[TrialStateName, ...] = ("complete", "failed", "running", "pruned")


@dataclass(frozen=True)
class Status:
    """A study at one moment.

    Attributes:
        trials: Number of trials by state.
        infeasible: Complete trials that violate a constraint.
        budget: Number of evaluations that its trials may come to.
        evaluations: What they come to so far: one each, more for those that climb.
        climbed: Trials that went on along slopes.
        failed_climbs: Trials that were scored and could not.
        climb_error: Why the last of them could not, in one line; ``None`` if there are none.
        hypervolume: Of the front so far; see ``analysis.front``.
        seconds: Time per phase, summed over workers and drivers.
        elapsed_s: Wall-clock seconds of searching.
        trials_per_minute: Finished trials per minute of searching.
        utilisation: Share of the workers' time that went into merging, evaluating and slopes.
        items_saved: Share of item evaluations of the objectives that races saved.
        unenforced: Constraints that hold nothing, and why; see ``study.constraints``.
    """

    trials: Mapping[str, int]
    infeasible: int
    budget: int
    evaluations: float
    climbed: int
    hypervolume: float
    seconds: Mapping[str, float]
    elapsed_s: float
    trials_per_minute: float
    utilisation: float = 0.0
    items_saved: float = 0.0
    unenforced: tuple[str, ...] = ()
    failed_climbs: int = 0
    climb_error: str | None = None

    def as_data(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return asdict(self)


def study_status(study: StudyRecord, timing: Mapping[str, float]) -> Status:
    """Sum up a study.

    Args:
        study: As read from its folder.
        timing: Seconds per phase, and ``elapsed``.
    """
    states = [trial.state for trial in study.trials]
    elapsed = timing["elapsed"]
    errors = [trial.climb_error for trial in study.trials if trial.climb_error is not None]
    finished = sum(state != "running" for state in states)
    return Status(
        trials={state: states.count(state) for state in _STATES},
        infeasible=sum(not trial.is_feasible for trial in study.trials),
        budget=study.n_trials,
        evaluations=study.evaluations,
        climbed=sum(trial.has_climbed for trial in study.trials),
        hypervolume=hypervolume(study),
        seconds={phase: s for phase, s in timing.items() if phase != "elapsed"},
        elapsed_s=elapsed,
        trials_per_minute=60 * finished / elapsed if elapsed > 0 else 0.0,
        utilisation=utilisation(timing),
        items_saved=items_saved(study),
        unenforced=study.unenforced,
        failed_climbs=len(errors),
        climb_error=errors[-1] if errors else None,
    )


def items_saved(study: StudyRecord) -> float:
    """Measure what races saved, as a share of the items that would have been scored without."""
    full = max((sum(t.n_items) for t in study.trials), default=0)
    scored = [sum(t.n_items) for t in study.trials if t.state == "complete"]
    dropped = [sum(t.partial.n_items) for t in study.trials if t.partial is not None]
    without = full * (len(scored) + len(dropped))
    return 1 - sum(scored + dropped) / without if full else 0.0
