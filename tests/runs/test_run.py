"""A study from start to end: its statistics pass."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.config.load import Draft
from evomerge.config.presets import Presets
from evomerge.errors import StudyError
from evomerge.runs import stages
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import continue_study
from evomerge.runs.stored import write_experiment
from evomerge.study.folder import StudyFolder
from tests.runs.creating import create_run

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
SPACE = {
    "method": {"choice": ["ties", "sce"]},
    "genes": {"coefficient": {}, "density": {}, "select_topk": {"range": [0.2, 1.0]}},
}


def study(folder: Path) -> StudyFolder:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": SPACE,
        "evaluators": [{"tasks": ["zoo_math"], "include_path": str(TASKS), "limit": 2}],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
        "sampler": "random",
        "budget": {"trials": 8},
        "execution": {"executor": "inline"},
        "finalists": 0,
    }
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(content))
    made = StudyFolder(folder / "study")
    create_run(file, Presets(), [], made)
    return made


def test_workers_find_every_statistic_that_the_space_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    phases: list[str] = []
    parts: list[tuple[str, int, int]] = []
    entries: list[set[Path]] = []

    def phase(text: str) -> None:
        phases.append(text)
        entries.append(set((tmp_path / "cache" / "statistics").rglob("*")))

    record = continue_study(study(tmp_path), Events(phase, lambda *part: parts.append(part)))
    assert [t.state for t in record.trials] == ["complete"] * 8
    assert phases[1:3] == ["measuring the models", "loading the workers"]
    assert any(done == total > 0 for text, done, total in parts if text.startswith("statistics"))
    assert not entries[1]
    assert entries[2]
    assert set((tmp_path / "cache" / "statistics").rglob("*")) == entries[2]


def test_without_a_cache_workers_measure_on_first_use(tmp_path: Path) -> None:
    phases: list[str] = []
    continue_study(study(tmp_path), Events(phases.append))
    assert "measuring the models" not in phases


def test_a_study_that_ended_before_its_first_trial_makes_room_and_no_other_does(
    tmp_path: Path,
) -> None:
    made = study(tmp_path)
    changed = yaml.safe_load((tmp_path / "e.yaml").read_text()) | {"budget": {"trials": 4}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(changed))
    create_run(tmp_path / "e.yaml", Presets(), [], made)
    assert len(continue_study(made, Events()).trials) == 4
    with pytest.raises(StudyError, match="holds a study already"):
        create_run(tmp_path / "e.yaml", Presets(), [], made)


def test_of_two_runs_that_begin_at_the_same_moment_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one starts, and begins its study, while this one checks its experiment."""
    made = study(tmp_path)
    made.experiment.unlink()
    check = stages.load_draft
    other = StudyFolder(made.root)

    def overtaken(draft: Draft) -> tuple[Loaded, ...]:
        (loaded,) = check(draft)
        holding.enter_context(other.lock())
        write_experiment(other, loaded.experiment)
        return (loaded,)

    monkeypatch.setattr(stages, "load_draft", overtaken)
    with ExitStack() as holding, pytest.raises(StudyError, match="another evomerge process"):
        create_run(tmp_path / "e.yaml", Presets(), [], made)
    assert made.experiment.is_file()  # of the other one, which goes on


def test_a_run_holds_its_folder_from_the_moment_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(tmp_path)

    def overtaken(*arguments: Any, **options: Any) -> None:
        create_run(tmp_path / "e.yaml", Presets(), [], StudyFolder(made.root))

    monkeypatch.setattr(stages, "continue_run", overtaken)
    with pytest.raises(StudyError, match="another evomerge process"):
        stages.start_run(tmp_path / "e.yaml", Presets(), [], made, Events())
