"""Commands on single models."""

from __future__ import annotations

import json
from pathlib import Path

import lm_eval
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from typer.testing import CliRunner

from evomerge.cli.main import app
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.models.zoo import zoo_path

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"


def test_tasks_are_evaluated_as_lm_eval_does_by_name_and_folder(tmp_path: Path) -> None:
    for file in TASKS.rglob("*.yaml"):  # lm-eval looks for data where it is started
        task = yaml.safe_load(file.read_text())
        files = task["dataset_kwargs"]["data_files"]
        files |= {split: str((file.parent / name).resolve()) for split, name in files.items()}
        (tmp_path / file.name).write_text(yaml.safe_dump(task))
    wanted = ["--tasks", "zoo_facts,zoo_list", "--include-path", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, ["evaluate", "zoo:facts", *wanted])
    assert done.exit_code == 0, done.output
    ours = json.loads(done.stdout)["results"]
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(zoo_path("facts")), device="cpu"),
        tasks=["zoo_facts", "zoo_list"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    assert theirs is not None
    for task, metric in (("zoo_facts", "acc"), ("zoo_list", "exact_match")):
        assert ours[task][metric]["value"] == theirs["results"][task][f"{metric},none"]


def test_models_are_put_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "moe.yaml"
    file.write_text(
        "base_model: zoo:base\n"
        "gate_mode: cheap_embed\n"
        "experts:\n"
        '  - {source_model: zoo:math, positive_prompts: ["3 + 4 ="]}\n'
        '  - {source_model: zoo:list, positive_prompts: ["sort: b a c"]}\n'
    )
    done = CliRunner().invoke(app, ["moe", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "Mixtral of 2 experts written to" in done.stdout
    assert (tmp_path / "out" / "README.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "got neither"),
        (["--tasks", "a", "--evaluator", "zoo"], "got both"),
        (["--tasks", "a", "--include-path", "nowhere"], "expected a folder of task YAML"),
    ],
)
def test_what_to_evaluate_must_be_clear(arguments: list[str], expected: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", "zoo:facts", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert expected in str(done.exception)
