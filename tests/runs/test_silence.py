"""A task that is set up wrong is noticed once base and experts have all scored the same."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from evomerge.config.presets import Presets
from evomerge.runs.events import Events
from evomerge.runs.stages import start_run
from evomerge.study.folder import StudyFolder

ZOO = Presets().names("evaluators")["zoo"].parent / "tasks"
SPLITS = {"search": "search", "validation": "validation", "test": "test"}


def warnings_of(folder: Path, tasks: Path, name: str) -> list[str]:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": [
            {"tasks": [name], "include_path": str(tasks), "splits": SPLITS, "limit": 10}
        ],
        "objectives": [{"task": name, "metric": "exact_match"}, {"cost": "parameters"}],
        "sampler": "random",
        "budget": {"trials": 5},
        "execution": {"executor": "inline"},
        "finalists": 0,
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(content))
    said: list[str] = []
    start_run(
        folder / "e.yaml", Presets(), [], StudyFolder(folder / name), Events(warned=said.append)
    )
    return said


def test_it_is_said_with_prompt_answer_and_gold(tmp_path: Path) -> None:
    task = yaml.safe_load((ZOO / "zoo_math" / "zoo_math.yaml").read_text())
    files = task["dataset_kwargs"]["data_files"]
    task["dataset_kwargs"]["data_files"] = {
        split: str((ZOO / "zoo_math" / file).resolve()) for split, file in files.items()
    }
    task |= {"task": "never_right", "doc_to_target": "the answer is {{answer}}"}
    (tmp_path / "never_right.yaml").write_text(yaml.safe_dump(task))
    (said,) = warnings_of(tmp_path, tmp_path, "never_right")
    first, prompt, answer, gold, cures = said.splitlines()
    assert first == (
        "never_right may say nothing: base and experts all score 0.000 on 10 items, e.g."
    )
    assert prompt.startswith("  prompt  'compute ")
    assert re.fullmatch(r"  answer  '[a-z ]*'", answer)  # quoted: a space may be the fault
    assert re.fullmatch(r"  gold    'the answer is [a-z ]+'", gold)
    assert "filter_list" in cures


def test_nothing_is_said_where_they_differ_nor_of_costs(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, ZOO, "zoo_math") == []
