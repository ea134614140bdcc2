"""A study whose merges are all worse than an expert recommends the expert, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from evomerge.analysis.picking import pick
from evomerge.cli.main import app
from evomerge.config.presets import Presets
from evomerge.models.zoo import zoo_path
from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder

TASKS = str(Presets().names("evaluators")["zoo"].parent / "tasks")
SPLITS = {"search": "search", "validation": "validation", "test": "test"}


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, str]:
    """A study and what its run printed: no average is as good at sums as who learnt them."""
    root = tmp_path_factory.mktemp("no_gain")
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": {"method": "linear", "genes": {"coefficient": {"range": [0.3, 0.5]}}},
        "evaluators": [
            {"tasks": ["zoo_math"], "include_path": TASKS, "splits": SPLITS, "limit": 40}
        ],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
        "sampler": "random",
        "budget": {"trials": 8},
        "execution": {"executor": "inline"},
    }
    (root / "e.yaml").write_text(yaml.safe_dump(content))
    return StudyFolder(root / "study"), call("run", root / "e.yaml", "--dir", root / "study")


def test_the_expert_is_chosen_and_the_terminal_says_so(finished: tuple[StudyFolder, str]) -> None:
    folder, printed = finished
    study = read_study(folder)
    test = {f.origin: f.values[0] for f in study.finals if f.split == "test"}
    assert test["expert:math"] > max(test["search"], test["uniform"])
    assert pick(study, "chosen").origin == "expert:math"
    assert "No merge is better than expert math on the validation items, so it is chosen" in printed
    assert "expert:math (chosen)" in printed
    assert "best merge (#" in printed
    said = json.loads(CliRunner().invoke(app, ["front", str(folder.root), "--json"]).stdout)
    assert said["no_gain"] in printed
    assert said["no_gain"] in folder.report.read_text("utf-8").replace("\N{NO-BREAK SPACE}", " ")


def test_what_was_chosen_is_exported_as_the_expert_it_is(
    finished: tuple[StudyFolder, str], tmp_path: Path
) -> None:
    printed = call("export", finished[0].root, "--pick", "chosen", "--out", tmp_path / "out")
    assert "No merge is better than expert math" in printed
    exported, expert = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "out", zoo_path("math"))
    )
    assert exported.keys() == expert.keys()
    assert all(torch.equal(t, expert[name].to(t.dtype)) for name, t in exported.items())


def test_a_merge_that_was_no_finalist_is_scored_for_its_own_card(
    finished: tuple[StudyFolder, str], tmp_path: Path
) -> None:
    folder, _ = finished
    study, out = read_study(folder), tmp_path / "out"
    (best,) = [f for f in study.finals if f.split == "test" and f.origin == "search"]
    other = next(t for t in study.trials if t.origin == "search" and t.number != best.number)
    call("export", folder.root, "--pick", f"trial:{other.number}", "--out", out)
    rows = [line.split(" | ") for line in (out / "README.md").read_text().splitlines()]
    table = {(row[0].strip("| "), row[1]): row[2].strip(" |") for row in rows if len(row) == 3}
    (tmp_path / "suite.yaml").write_text(
        yaml.safe_dump(
            {"tasks": ["zoo_math"], "include_path": TASKS, "splits": SPLITS, "limit": 40}
        )
    )
    arguments = ["evaluate", str(out), "--evaluator", str(tmp_path / "suite.yaml"), "--json"]
    alone = json.loads(CliRunner().invoke(app, arguments).stdout)
    value = alone["results"]["zoo_math"]["exact_match"]["value"]
    assert table["this merge", "test"].split()[0] == f"{value:.3f}"
    assert (
        float(table[f"merge {best.number} (not this model)", "test"].split()[0]) == best.values[0]
    )
    assert "No merge is better than expert math" in (out / "README.md").read_text()
