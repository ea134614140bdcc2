"""Studies of earlier versions go on in this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from evomerge.config.experiment import Experiment
from evomerge.config.load import experiment_digest
from evomerge.errors import ConfigError, StudyError
from evomerge.runs.events import Events
from evomerge.runs.optuna_study import find_study
from evomerge.runs.reading import read_study
from evomerge.runs.run import change_study, continue_study
from evomerge.runs.stored import read_experiment
from evomerge.schema import parse
from evomerge.study.folder import StudyFolder
from tests.studies.make import EXPERIMENT

HERE = Path(__file__).parent
STUDIES = ("before_schema_versions", "schema_1")


@pytest.fixture(params=STUDIES)
def study(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> StudyFolder:
    """A copy of a stored study; its paths are relative to the current folder."""
    shutil.copytree(HERE / request.param, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return StudyFolder(Path("study"))


def test_a_study_of_every_version_goes_on(study: StudyFolder) -> None:
    before = read_study(study).trials
    change_study(study, ["budget.trials=8"])
    after = continue_study(study, Events()).trials
    assert after[:6] == before
    assert [t.state for t in after] == ["complete"] * 8
    change_study(study, ["budget.trials=9"])  # again: what was written by now is known, too
    assert len(continue_study(study, Events()).trials) == 9
    with pytest.raises(StudyError, match="start a new study for another experiment"):
        change_study(study, ["seed=1"])


def test_a_study_of_every_version_refuses_another_experiment(study: StudyFolder) -> None:
    change_study(study, ["budget.trials=7"])
    continue_study(study, Events())
    text = study.experiment.read_text()
    study.experiment.write_text(text.replace("[0.0, 1.0]", "[0.0, 1.5]"))
    with pytest.raises(StudyError, match="started with another experiment"):
        continue_study(study, Events())


def test_the_stored_study_is_known_by_the_digest_of_today(tmp_path: Path) -> None:
    folder = StudyFolder(HERE / "schema_1" / "study")
    experiment = read_experiment(folder)
    found = find_study(folder, experiment)
    assert found is not None
    assert found.user_attrs["experiment"] == experiment_digest(experiment)


def test_a_new_key_at_its_default_keeps_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parse(Experiment, EXPERIMENT)

    class Section(BaseModel):
        newer: int = 3

    extended: Any = create_model(
        "Later", __base__=Experiment, new=(bool, False), section=(Section, Section())
    )
    assert experiment_digest(parse(extended, EXPERIMENT)) == experiment_digest(before)
    same = EXPERIMENT | {"new": False, "section": {"newer": 3}}
    assert experiment_digest(parse(extended, same)) == experiment_digest(before)
    for other in ({"new": True}, {"section": {"newer": 4}}):
        changed = parse(extended, EXPERIMENT | other)
        assert experiment_digest(changed) != experiment_digest(before)


def test_a_default_that_is_written_out_keeps_the_digest() -> None:
    before = parse(Experiment, EXPERIMENT)
    spelt_out = before.model_dump(mode="json")
    assert experiment_digest(parse(Experiment, spelt_out)) == experiment_digest(before)


def test_no_default_has_changed_under_its_schema_version() -> None:
    """A study stores what differs from the defaults: another default would make it another study.

    A key that is new may be missing here; what is here may only change with the schema version.
    """
    now = parse(Experiment, EXPERIMENT).model_dump(mode="json")
    stored = json.loads((HERE / "defaults.json").read_text())
    assert now["schema_version"] == stored["schema_version"]
    assert list(_changed(stored, now, "")) == []


def _changed(stored: object, now: object, where: str):
    if isinstance(stored, dict) and isinstance(now, dict):
        for key, value in stored.items():
            yield from _changed(value, now.get(key, "no such key"), f"{where}.{key}")
    elif isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        for i, value in enumerate(stored):
            yield from _changed(value, now[i], f"{where}[{i}]")
    elif stored != now:
        yield where, stored, now


def test_a_later_schema_is_not_taken_for_ours() -> None:
    with pytest.raises(ConfigError, match="schema_version: expected 1, got 2: another version"):
        parse(Experiment, EXPERIMENT | {"schema_version": 2})
