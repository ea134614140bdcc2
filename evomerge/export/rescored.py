"""Scores of an exported folder beside those of its trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from evomerge.export.rescore import FolderScores
from evomerge.export.rounding import FoldError
from evomerge.merging.finite import NonFinite
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Rescored", "rescored"]

_SLACK = 0.02  # an item or two
_RELATIVE = 1e-4  # of what adds up the rounding of a whole forward pass in float32


@dataclass(frozen=True)
class Rescored:
    """Scores of an exported folder beside those of its trial; costs are not measured again.

    Attributes:
        objectives: Names.
        trial: Values as recorded.
        folder: Values of the folder, loaded by plain transformers.
        stderr: Standard errors of the trial's values.
        folding: What rounding did to a path with scales; ``None`` where nothing was folded.
        is_same_engine: Whether the trial was scored by transformers, too.
        non_finite: NaN and infinity in the folder, where they were allowed.
        trial_device: Name of what the trial was scored on; ``None`` if that is not known.
        device: Name of what the folder was scored on.
        dtype: Of the parameters.
        is_same_dtype: Whether the trial had them in it, too.
    """

    objectives: tuple[str, ...]
    trial: tuple[float, ...]
    folder: tuple[float, ...]
    stderr: tuple[float, ...]
    folding: FoldError | None = None
    is_same_engine: bool = True
    non_finite: NonFinite | None = None
    trial_device: str | None = "cpu"
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    is_same_dtype: bool = True

    @property
    def equal(self) -> bool:
        """Whether the folder scores what the trial scored, as closely as ``rule`` says.

        Rounding may flip an item or two also where the standard error is 0, or unknown.
        """
        limits = [1e-12] * len(self.stderr)
        if self._differences:
            limits = [
                max(0.0 if math.isnan(stderr) else stderr, _SLACK, self._relative * abs(value))
                for stderr, value in zip(self.stderr, self.trial, strict=True)
            ]
        pairs = zip(self.trial, self.folder, limits, strict=True)
        return all(abs(a - b) <= limit for a, b, limit in pairs)

    @property
    def rule(self) -> str:
        """How closely the folder must score what the trial scored, and why, in one line."""
        if not self._differences:
            return f"on {self.device} as the trial was: values must be equal"
        return (
            f"values may differ by a standard error, {_SLACK} or {self._relative:.2%} of the "
            f"value, whichever is most, because {' and '.join(self._differences)}"
        )

    @property
    def _differences(self) -> list[str]:
        """Why the same model may round differently."""
        where = self.trial_device or "a device that was not recorded"
        reasons = {
            "its scales were folded": self.folding is not None,
            "vLLM scored the trial": not self.is_same_engine,
            "the trial had another dtype": not self.is_same_dtype,
            f"the trial was scored on {where}, the folder on {self.device}, in "
            f"{str(self.dtype).removeprefix('torch.')}": self.trial_device != self.device,
        }
        return [reason for reason, holds in reasons.items() if holds]

    @property
    def _relative(self) -> float:
        return max(_RELATIVE, 4 * torch.finfo(self.dtype).eps)


def rescored(study: StudyRecord, trial: TrialRecord, again: FolderScores) -> Rescored:
    """Put what a folder scored beside what its trial did."""
    scored = [(i, o) for i, o in enumerate(study.objectives) if not o.is_cost]
    return Rescored(
        objectives=tuple(o.name for _, o in scored),
        trial=tuple(trial.values[i] for i, _ in scored),
        folder=tuple(again.scores.metrics[o.task][o.metric].value for _, o in scored),
        stderr=tuple(trial.stderr[i] for i, _ in scored),
        trial_device=trial.device,
        device=again.device,
        dtype=again.dtype,
    )
