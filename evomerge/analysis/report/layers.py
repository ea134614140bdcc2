"""Trials as figures show them: the front, the baselines, the chosen one, the crowd behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.analysis.front import baselines, complete, front
from evomerge.analysis.once import once
from evomerge.analysis.report.palette import LIGHT
from evomerge.analysis.report.scores import chosen_number, summaries
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Layer", "Layers", "layers_of"]

_MOST_DOMINATED = 1000


@dataclass(frozen=True)
class Layer:
    """Trials that look alike.

    Attributes:
        name: In the legend.
        trials: By number.
        color: Of the light palette.
    """

    name: str
    trials: tuple[TrialRecord, ...]
    color: str


@dataclass(frozen=True)
class Layers:
    """Every complete trial in one layer at most, from the background to the foreground.

    Of very many dominated ones only the best are there.
    """

    infeasible: Layer
    cloud: Layer
    front: Layer
    baselines: Layer
    chosen: Layer

    @property
    def back_to_front(self) -> tuple[Layer, ...]:
        """In the order they are drawn."""
        return self.infeasible, self.cloud, self.front, self.baselines, self.chosen


@once
def layers_of(study: StudyRecord) -> Layers:
    """Sort the complete trials of a study into layers."""
    chosen, reference = chosen_number(study), {t.number for t in baselines(study)}
    on_front = {t.number for t in front(study)} - reference - {chosen}
    rest = [t for t in complete(study) if t.number not in reference and t.number != chosen]
    ahead = [t for t in rest if t.number in on_front]
    beaten = [t for t in rest if t.is_feasible and t.number not in on_front]
    infeasible = [t for t in rest if not t.is_feasible and t.number not in on_front]
    best = _best(beaten, study)
    some = "" if len(best) == len(beaten) else f", the best {len(best):,}"
    return Layers(
        Layer("infeasible", tuple(infeasible), LIGHT["faint"]),
        Layer(f"dominated{some}", best, LIGHT["cloud"]),
        Layer("front", tuple(ahead), LIGHT["accent"]),
        Layer("baselines", tuple(t for t in baselines(study) if t.number != chosen), LIGHT["ink"]),
        Layer("chosen", tuple(t for t in complete(study) if t.number == chosen), LIGHT["chosen"]),
    )


def _best(trials: Sequence[TrialRecord], study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Leave as many as a page has room for, by number."""
    merit = summaries(study)
    ranked = sorted(trials, key=lambda t: -merit[t.number])[:_MOST_DOMINATED]
    return tuple(sorted(ranked, key=lambda t: t.number))
