"""Says to Weights & Biases how a study goes: a run per study, its trials the steps."""

from __future__ import annotations

import hashlib

import wandb

from evomerge.api.loggers.followed import Followed, final_numbers, settings
from evomerge.api.study import Study
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["WandbLogger"]

_TRIAL = "trial"  # the step: trials come in any order, W&B's own steps must not


class WandbLogger:
    """See ``Logger``. A study that is resumed goes on in its run.

    Args:
        project: Of W&B; where it is kept is W&B's own setting (``WANDB_MODE=offline``,
            ``WANDB_DIR`` …).
    """

    def __init__(self, project: str = "evomerge") -> None:
        self._project = project
        self._run: wandb.Run | None = None

    def begin(self, study: Study, record: StudyRecord) -> None:
        """See ``Logger``."""
        if self._run is not None:  # an earlier stage
            self._run.finish()
        place = f"{study.dir.resolve()}: {record.name}"
        self._run = wandb.init(
            project=self._project,
            name=record.name,
            id=hashlib.blake2b(place.encode(), digest_size=8).hexdigest(),
            resume="allow",
            config=settings(study.experiment),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric=_TRIAL)
        self._followed = Followed(record)
        if not self._run.resumed:
            for trial, numbers in self._followed.earlier:
                self._run.log({_TRIAL: trial.number, **numbers})

    def __call__(self, study: Study, trial: TrialRecord) -> None:
        """See ``Logger``."""
        assert self._run is not None, "it has begun"
        self._run.log({_TRIAL: trial.number, **self._followed.add(trial)})

    def end(self, study: Study) -> None:
        """See ``Logger``."""
        assert self._run is not None, "it has begun"
        self._run.summary.update(final_numbers(study.record))
        self._run.finish()
