"""Trials as figures show them: the front, the baselines, the chosen one, the crowd behind."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.analysis.front import baselines, complete, front
from evomerge.analysis.report.palette import LIGHT
from evomerge.analysis.report.scores import chosen_number
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Layer", "Layers", "layers_of"]


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
    """Every complete trial in exactly one layer, from the background to the foreground."""

    infeasible: Layer
    cloud: Layer
    front: Layer
    baselines: Layer
    chosen: Layer

    @property
    def back_to_front(self) -> tuple[Layer, ...]:
        """In the order they are drawn."""
        return self.infeasible, self.cloud, self.front, self.baselines, self.chosen


def layers_of(study: StudyRecord) -> Layers:
    """Sort the complete trials of a study into layers."""
    chosen, reference = chosen_number(study), {t.number for t in baselines(study)}
    on_front = {t.number for t in front(study)} - reference - {chosen}
    rest = [t for t in complete(study) if t.number not in reference and t.number != chosen]
    plain = [t for t in rest if t.is_feasible or t.number in on_front]
    return Layers(
        Layer("infeasible", tuple(t for t in rest if t not in plain), LIGHT["faint"]),
        Layer("dominated", tuple(t for t in plain if t.number not in on_front), LIGHT["cloud"]),
        Layer("front", tuple(t for t in plain if t.number in on_front), LIGHT["accent"]),
        Layer("baselines", tuple(t for t in baselines(study) if t.number != chosen), LIGHT["ink"]),
        Layer("chosen", tuple(t for t in complete(study) if t.number == chosen), LIGHT["chosen"]),
    )
