"""What an experiment is made of is loaded once per process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli.main import app
from evomerge.config.presets import Presets
from evomerge.evaluation import catalogue
from evomerge.evaluation.suite import SPLITS, Suite
from evomerge.models import loading


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the suites that are loaded, each time."""
    names: list[str] = []
    load = catalogue.load_what_loads

    def counted(suite: Suite) -> object:
        names.append(suite.name)
        return load(suite)

    monkeypatch.setattr(catalogue, "load_what_loads", counted)
    monkeypatch.setattr(catalogue, "load_suite", lambda suite: counted(suite)[0])  # type: ignore[index]
    return names


def write(folder: Path, **changes: object) -> Path:
    """The quickstart, small."""
    tasks = Presets().names("evaluators")["zoo"].parent / "tasks"
    splits = {split: split for split in SPLITS}
    few = {"tasks": ["zoo_math"], "include_path": str(tasks), "splits": splits, "limit": 3}
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": [few],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
        "budget": {"trials": 4},
        "finalists": 1,
        **changes,
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(content))
    return folder / "e.yaml"


def call(*arguments: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output


def test_check_loads_each_suite_once(tmp_path: Path, loads: list[str]) -> None:
    call("check", str(write(tmp_path)))
    assert loads == ["evaluators[0]"]


def test_run_loads_each_suite_once_finals_included(tmp_path: Path, loads: list[str]) -> None:
    run = str(tmp_path / "run")
    call("run", str(write(tmp_path)), "--dir", run, "--executor", "inline")
    assert loads == ["evaluators[0]"]


def test_stages_share_what_is_loaded(tmp_path: Path, loads: list[str]) -> None:
    stage = {"search_space": "global_linear"}
    path = write(tmp_path, stages=[stage, stage], search_space=None)
    call("run", str(path), "--dir", str(tmp_path / "run"), "--executor", "inline")
    assert loads == ["evaluators[0]"]


def test_a_second_check_needs_no_code_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    loading._read.cache_clear()  # what this process knows is not written down
    written = str(write(tmp_path))
    call("check", written)
    code = (
        "import sys; from evomerge.cli.main import app; "
        f"app(['check', {written!r}], standalone_mode=False); "
        "print('transformers.modeling_utils' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
