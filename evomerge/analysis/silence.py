"""Objectives that say nothing: base and experts all score the same, as on a task set up wrong."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.analysis.front import complete
from evomerge.origins import BASE, is_single_model
from evomerge.study.records import Objective, StudyRecord, TrialRecord

__all__ = ["Silence", "silences"]

_CURES = (
    "usual cures: a filter that finds the answer in the text (filter_list), stop strings that end "
    "it (until), few-shot examples that show its form (num_fewshot), a chat template "
    "(apply_chat_template); or leave the objective out"
)


@dataclass(frozen=True)
class Silence:
    """An objective in which base and experts do not differ.

    Attributes:
        objective: Its name.
        value: What all of them score.
        n_items: Items behind it.
        example: One of them as an expert answered it, in lines; empty if there is none to show.
    """

    objective: str
    value: float
    n_items: int
    example: str

    @property
    def line(self) -> str:
        """Say so in one line."""
        return (
            f"{self.objective} may say nothing: base and experts all score {self.value:.3f} on "
            f"{self.n_items} items"
        )

    def __str__(self) -> str:
        shown = f", e.g.\n{self.example}\n" if self.example else "; "
        return f"{self.line}{shown}{_CURES}"


def silences(study: StudyRecord) -> tuple[Silence, ...]:
    """Find the objectives in which the base and the experts scored so far do not differ.

    Costs are left out: what all models cost alike is not measured wrong.
    """
    parents = [t for t in complete(study) if is_single_model(t.origin)]
    if len(parents) < 2 or BASE not in {t.origin for t in parents}:
        return ()
    shown = parents[-1]
    return tuple(
        Silence(
            objective.name,
            shown.values[i],
            shown.n_items[i] if shown.n_items else 0,
            _example(shown, objective),
        )
        for i, objective in enumerate(study.objectives)
        if not objective.is_cost and len({t.values[i] for t in parents}) == 1
    )


def _example(trial: TrialRecord, objective: Objective) -> str:
    if (sample := trial.samples.get(objective.name)) is None:
        return ""
    pairs = {"prompt": sample.prompt, "answer": sample.answer, "gold": sample.gold}
    return "\n".join(f"  {name:<8}{text!r}" for name, text in pairs.items())
