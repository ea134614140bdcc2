"""Experts of the embedded family beside one another: one pass, cached, in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli import main as cli
from evomerge.config.presets import Presets
from evomerge.merging.sources import Sources
from evomerge.runs.compare import compare_experts, read_comparison, write_comparison
from evomerge.runs.events import Events
from evomerge.runs.run import continue_study
from evomerge.study.folder import StudyFolder
from tests.runs.creating import create_run

TASKS = str(Presets().names("evaluators")["zoo"].parent / "tasks")
EXPERTS = {"math": "zoo:math", "list": "zoo:list"}


def test_numbers_equal_those_of_the_whole_task_vectors() -> None:
    sources = Sources("zoo:base", EXPERTS)
    found = compare_experts(sources)

    def vector(names: list[str]) -> np.ndarray:
        flat = [
            np.concatenate([sources.tensor(m, n).float().numpy().reshape(-1) for n in names])
            for m in ("base", *EXPERTS)
        ]
        return np.array(flat, dtype=np.float64)

    inside = [n for n in sources.names if ".layers.2." in n]
    for place, names in ((found.model, list(sources.names)), (found.parts[2], inside)):
        base, *models = vector(names)
        tau = np.array(models) - base
        norms = np.linalg.norm(tau, axis=1)
        assert [e.norm for e in place.experts] == pytest.approx(norms)
        assert place.experts[0].relative_norm == pytest.approx(norms[0] / np.linalg.norm(base))
        (pair,) = place.pairs
        assert pair.cosine == pytest.approx(tau[0] @ tau[1] / norms.prod(), abs=1e-6)
        products = tau[0] * tau[1]
        shared, opposed = np.count_nonzero(products), np.count_nonzero(products < 0)
        assert pair.conflict == pytest.approx(opposed / shared, abs=1e-9)
        assert 0 < pair.top_conflict < pair.conflict  # large changes agree more than small ones


def test_parts_are_the_layers_and_what_is_outside() -> None:
    done: list[tuple[int, int]] = []
    found = compare_experts(Sources("zoo:base", EXPERTS), lambda *n: done.append(n))
    assert [part.name for part in found.parts][:6] == [f"layer {i}" for i in range(6)]
    assert {part.name for part in found.parts[6:]} == {"embedding", "norm"}
    assert done[-1][0] == done[-1][1]


def test_a_second_time_no_tensor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    first = compare_experts(Sources("zoo:base", EXPERTS))
    sources = Sources("zoo:base", EXPERTS)
    for model in sources.models:
        monkeypatch.setattr(model, "tensor", lambda name: pytest.fail(f"{name} read again"))
    assert repr(compare_experts(sources)) == repr(first)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    comparison = compare_experts(Sources("zoo:base", {"math": "zoo:math"}))
    write_comparison(tmp_path / "comparison.json", comparison)
    found = read_comparison(tmp_path / "comparison.json")
    assert repr(found) == repr(comparison)  # shares of nothing are NaN, which equals nothing
    assert read_comparison(tmp_path / "nothing.json") is None


def write(folder: Path) -> Path:
    content = {
        "models": {"base": "zoo:base", "experts": EXPERTS},
        "search_space": "global_linear",
        "evaluators": [{"tasks": ["zoo_list"], "include_path": TASKS, "limit": 2}],
        "objectives": [{"task": "zoo_list", "metric": "exact_match"}],
        "sampler": "random",
        "budget": {"trials": 4},
        "execution": {"executor": "inline"},
        "finalists": 0,
    }
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def test_a_run_compares_its_experts_and_the_report_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.analysis.report import write_report

    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    folder = StudyFolder(tmp_path / "study")
    create_run(write(tmp_path), Presets(), [], folder)
    study = continue_study(folder, Events())
    comparison = read_comparison(folder.comparison)
    assert comparison is not None
    page = tmp_path / "report.html"
    write_report(study, page, comparison=comparison, inline_js=False)
    text = page.read_text()
    assert "Measured on the search items, best first: " in text
    assert comparison.hint not in text  # angles are for who has no scores
    assert text.count('"type":"heatmap"') == 3


def test_compare_quotes_the_seeds_of_a_study_over_the_same_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path)
    folder = StudyFolder(tmp_path / "runs" / file.stem)
    create_run(file, Presets(), [], folder)
    continue_study(folder, Events())
    said = CliRunner().invoke(cli.app, ["compare", str(file)]).stdout
    assert "Measured on the search items, best first: " in said
    assert "mean cosine" not in said
    others = [str(file), "--set", "models.experts.other=zoo:facts"]
    assert "mean cosine" in CliRunner().invoke(cli.app, ["compare", *others]).stdout


def test_compare_prints_tables_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(tmp_path))
    for arguments in (["compare", file], ["compare", file, "--json"]):
        monkeypatch.setattr("sys.argv", ["evomerge", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert not exit_.value.code
        out = capsys.readouterr().out
        if "--json" in arguments:
            found = json.loads(out)
            assert found["model"]["pairs"][0]["experts"] == ["math", "list"]
            assert found["parts"][0]["name"] == "layer 0"
        else:
            assert "math and list" in out
            assert "layer 5" in out
