"""Writes for TensorBoard how a study goes, into the study's folder: its trials are the steps."""

from __future__ import annotations

from torch.utils.tensorboard import SummaryWriter

from evomerge.api.loggers.followed import Followed, final_numbers, settings
from evomerge.api.study import Study
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["TensorboardLogger"]


class TensorboardLogger:
    """See ``Logger``. ``tensorboard --logdir DIR/tensorboard`` shows the study in ``DIR``."""

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    def begin(self, study: Study, record: StudyRecord) -> None:
        """See ``Logger``; what earlier drivers have written stays."""
        if self._writer is not None:  # an earlier stage
            self._writer.close()
        folder = study.dir / "tensorboard" / record.name.replace("/", "_")
        is_new = not folder.is_dir()
        self._writer, self._followed = SummaryWriter(folder), Followed(record)
        if is_new:
            for name, value in settings(study.experiment).items():
                self._writer.add_text(name, str(value))
            for trial, numbers in self._followed.earlier:
                self._log(numbers, trial.number)

    def __call__(self, study: Study, trial: TrialRecord) -> None:
        """See ``Logger``."""
        self._log(self._followed.add(trial), trial.number)

    def end(self, study: Study) -> None:
        """See ``Logger``."""
        assert self._writer is not None, "it has begun"
        self._log(final_numbers(study.record), 0)
        self._writer.close()

    def _log(self, numbers: dict[str, float], step: int) -> None:
        assert self._writer is not None, "it has begun"
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
