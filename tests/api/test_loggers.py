"""Loggers hear of every trial, and trackers keep what they hear."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge.api.callbacks import heard
from evomerge.api.loggers.base import Logger, logger_faults, make_logger
from evomerge.api.study import Study
from evomerge.errors import ConfigError
from evomerge.runs.events import Events
from evomerge.study.records import StudyRecord

NAMES = ("zoo_math", "zoo_facts", "hypervolume", "evaluations", "seconds/evaluate")


class Notebook:
    """Keeps what it hears, until it breaks."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.heard: list[object] = []
        self._breaks_at = breaks_at

    def begin(self, study: Study, record: StudyRecord) -> None:
        self.heard.append(("begin", record.name, len(record.trials)))

    def __call__(self, study: Study, trial: evomerge.Trial) -> None:
        if trial.number == self._breaks_at:
            raise ConnectionError("out of reach")
        self.heard.append(trial.number)

    def end(self, study: Study) -> None:
        self.heard.append("end")


def replay(study: Study, logger: Logger, first: int = 0, last: int = 6) -> list[str]:
    """Tell a logger of some trials of a finished study, as a run would; returns warnings."""
    record, warnings = study.record, list[str]()
    earlier = StudyRecord("whole", record.objectives, record.trials[:first], (), 6)
    with heard(Events(warned=warnings.append), [logger], study) as events:
        events.began(earlier)
        for trial in record.trials[first:last]:
            events.told(trial)
    return warnings


def test_a_logger_hears_of_the_beginning_every_trial_and_the_end(study: Study) -> None:
    notebook = Notebook()
    assert replay(study, notebook, first=2) == []
    assert notebook.heard == [("begin", "whole", 2), 2, 3, 4, 5, "end"]


def test_a_logger_that_fails_is_a_warning_and_hears_no_more(study: Study) -> None:
    notebook = Notebook(breaks_at=1)
    assert replay(study, notebook) == [
        "Notebook failed and hears no more of this run: ConnectionError(out of reach)"
    ]
    assert notebook.heard == [("begin", "whole", 0), 0]


def test_a_run_ends_for_loggers_even_where_a_callback_stops_it(
    keys: dict[str, Any], tmp_path: Path
) -> None:
    def stop(study: Study, trial: evomerge.Trial) -> None:
        raise ValueError("no more")

    notebook = Notebook()
    with pytest.raises(evomerge.EvomergeError, match="no more"):
        evomerge.run(keys, tmp_path / "s", callbacks=[stop, notebook])
    assert notebook.heard == [("begin", "s", 0), 0, "end"]


def test_a_library_that_is_not_there_is_a_fault_before_anything_runs(
    keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("evomerge.api.loggers.base.find_spec", lambda name: None)
    wrong = {**keys, "loggers": ["wandb"], "budjet": {}}
    with pytest.raises(ConfigError) as found:
        evomerge.run(wrong, tmp_path / "s")
    assert [line.partition(":")[0] for line in str(found.value).splitlines()] == [
        "budjet",
        "loggers[0]",
    ]
    assert "pip install 'wandb" in str(found.value)
    assert not (tmp_path / "s").exists()


def test_loggers_are_no_part_of_what_a_study_is_about(keys: dict[str, Any]) -> None:
    from evomerge.config.load import experiment_digest

    plain = evomerge.Experiment.from_dict(keys)
    logged = evomerge.Experiment.from_dict({**keys, "loggers": ["mlflow"]})
    assert experiment_digest(plain) == experiment_digest(logged)


def test_mlflow_keeps_every_trial_once_also_of_a_run_in_parts(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    assert not list(logger_faults(["mlflow"]))
    assert replay(study, make_logger("mlflow"), last=2) == []
    # Trial 2 was told by a driver that died before it could say so.
    assert replay(study, make_logger("mlflow"), first=3) == []
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("evomerge").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["experts"] == "math, facts"
    for i, name in enumerate(NAMES[:2]):
        kept = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
        assert kept == {t.number: t.values[i] for t in study.trials}
        assert len(client.get_metric_history(run.info.run_id, name)) == 6
    chosen = study.finals().query("split == 'test' and chosen")
    assert run.data.metrics["test/zoo_math"] == chosen["zoo_math"].item()
    assert set(NAMES) <= run.data.metrics.keys()
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["experiment.yaml"]


OFFLINE = """
import sys
from evomerge import Study
from evomerge.api.loggers.base import make_logger
from tests.api.test_loggers import replay
assert replay(Study.open(sys.argv[1]), make_logger("wandb"), first=2) == []
"""


def test_wandb_keeps_every_trial_offline(study: Study, tmp_path: Path) -> None:
    """In a process of its own: the library starts another one, which ends with it."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    command = [sys.executable, "-c", OFFLINE, str(study.dir)]
    subprocess.run(command, check=True, env=environment)
    (file,) = tmp_path.rglob("*.wandb")
    rows = wandb_rows(file.read_bytes())
    assert [row["trial"] for row in rows] == list(range(6))
    values = [(row["zoo_math"], row["zoo_facts"]) for row in rows]
    assert values == [t.values for t in study.trials]
    assert set(NAMES) <= rows[-1].keys()


def wandb_rows(data: bytes) -> list[dict[str, Any]]:
    """Read the history of a run's file: LevelDB's log format, blocks of 32 KiB after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows, parts, place = list[dict[str, Any]](), list[bytes](), 7
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            items = Record.FromString(b"".join(parts)).history.item
            row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
            rows, parts = [*rows, *([row] if row else [])], []
    return rows


def test_tensorboard_reads_every_trial_from_the_studys_folder(study: Study) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert replay(study, make_logger("tensorboard"), last=4) == []
    assert replay(study, make_logger("tensorboard"), first=4) == []
    found = EventAccumulator(str(study.dir / "tensorboard" / "whole"))
    found.Reload()
    kept = [(event.step, event.value) for event in found.Scalars("zoo_facts")]
    assert kept == [(t.number, pytest.approx(t.values[1])) for t in study.trials]
