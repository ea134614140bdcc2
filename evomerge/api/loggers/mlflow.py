"""Says to MLflow how a study goes: a run per study, its trials the steps."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from evomerge.api.loggers.followed import Followed, final_numbers, settings
from evomerge.api.study import Study
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["MlflowLogger"]

_STUDY = "evomerge.study"  # tag: the study's folder, by which a run is found again
_COUNTED = "evaluations"  # a metric that every trial has


class MlflowLogger:
    """See ``Logger``. A study that is resumed goes on in its run, which lacks no trial.

    Args:
        experiment: Name of the MLflow experiment; where that is kept is MLflow's own setting
            (``MLFLOW_TRACKING_URI``).
    """

    def __init__(self, experiment: str = "evomerge") -> None:
        self._experiment = experiment
        self._client = MlflowClient()
        self._run_id = ""

    def begin(self, study: Study, record: StudyRecord) -> None:
        """See ``Logger``."""
        if self._run_id:  # an earlier stage
            self._client.set_terminated(self._run_id)
        self._followed = Followed(record)
        self._run_id = self._run(study, record)
        logged = {m.step for m in self._client.get_metric_history(self._run_id, _COUNTED)}
        for trial, numbers in self._followed.earlier:
            if trial.number not in logged:
                self._log(numbers, trial.number)

    def __call__(self, study: Study, trial: TrialRecord) -> None:
        """See ``Logger``."""
        self._log(self._followed.add(trial), trial.number)

    def end(self, study: Study) -> None:
        """See ``Logger``; the resolved experiment is kept beside the numbers."""
        self._log(final_numbers(study.record), 0)
        self._client.log_artifact(self._run_id, str(study.dir / "experiment.yaml"))
        self._client.set_terminated(self._run_id)

    def _run(self, study: Study, record: StudyRecord) -> str:
        """Find the run of a study, or make it."""
        folder = f"{study.dir.resolve()}: {record.name}"
        where = self._place()
        if found := self._client.search_runs([where], f"tags.`{_STUDY}` = '{_quoted(folder)}'"):
            run_id: str = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        run_id = self._client.create_run(
            where, tags={_STUDY: _quoted(folder)}, run_name=record.name
        ).info.run_id
        about = [Param(name, str(value)) for name, value in settings(study.experiment).items()]
        self._client.log_batch(run_id, params=about)
        return run_id

    def _place(self) -> str:
        """Find the experiment of MLflow, or make it."""
        known = self._client.get_experiment_by_name(self._experiment)
        if known is None:
            return str(self._client.create_experiment(self._experiment))
        return str(known.experiment_id)

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._run_id, metrics=metrics)


def _quoted(text: str) -> str:
    """Leave out what would end a text in a filter of MLflow."""
    return text.replace("'", "_")
