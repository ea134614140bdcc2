"""Makes a small study over embedded models that holds no absolute path: six trials, no finals.

Run it with the version whose studies are to be kept: ``python -m tests.studies.make FOLDER``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from evomerge.config.experiment import Experiment
from evomerge.runs.events import Events
from evomerge.runs.run import continue_study, start_study
from evomerge.schema import parse
from evomerge.study.folder import StudyFolder

WORDS = ("one", "two", "three", "four")
TASK = """task: sums
dataset_path: json
dataset_kwargs: {data_files: {search: items.jsonl}}
test_split: search
output_type: multiple_choice
doc_to_text: '{{text}}'
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc}]
"""
EXPERIMENT = {
    "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
    "search_space": {
        "method": "task_arithmetic",
        "genes": {"coefficient": {"range": [0.0, 1.0]}},
    },
    "evaluators": [{"tasks": ["sums"], "include_path": "tasks", "splits": {"search": "search"}}],
    "objectives": [
        {"task": "sums", "metric": "acc"},
        {"task": "sums", "metric": "gold_bpb", "direction": "minimize"},
    ],
    "sampler": "nsga2",
    "budget": {"trials": 6},
    "execution": {"executor": "inline"},
    "finalists": 0,
}


def write_task(folder: Path) -> None:
    """Write the task and its items."""
    rows = [
        {"text": f"{a} plus {b} is", "choices": WORDS, "label": (i + j) % 4}
        for i, a in enumerate(WORDS)
        for j, b in enumerate(WORDS)
    ]
    folder.mkdir(parents=True)
    (folder / "sums.yaml").write_text(TASK)
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make(folder: Path) -> None:
    """Run a study in ``folder/study`` on the task in ``folder/tasks``."""
    write_task(folder / "tasks")
    os.chdir(folder)
    study = StudyFolder(Path("study"))
    start_study(parse(Experiment, EXPERIMENT), "make.py", study)
    continue_study(study, Events())
    (study.root / ".lock").unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
