"""A study read from Python says what its folder holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import optuna
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import evomerge
from evomerge.analysis.front import front
from evomerge.cli.main import app
from evomerge.errors import ConfigError, StudyError
from evomerge.export.model import CheckpointForm
from evomerge.origins import is_single_model


def test_a_trial_answers_again_what_was_scored(study: evomerge.Study) -> None:
    """Against the scores that the worker stored, and against the texts themselves."""
    answers = study.items(5)
    stored = study.item_scores().query("trial == 5 and split == 'search'")
    expected = stored.pivot_table(
        index=["task", "item"], columns="metric", values="score", observed=True
    )
    again = answers.set_index(["task", "item"])[expected.columns]
    assert again.astype(float).equals(expected.loc[again.index].astype(float))
    math_items = answers[answers["task"] == "zoo_math"]
    right = math_items["answer"].str.strip() == math_items["gold"].str.strip()
    assert (right == (math_items["exact_match"] == 1)).all()
    assert answers["prompt"].str.len().min() > 0


def test_tables_hold_what_the_records_hold(study: evomerge.Study) -> None:
    record, trials, front = study.record, study.trials_dataframe(), study.front()
    assert list(trials["number"]) == [t.number for t in record.trials]
    for trial in record.trials:
        row = trials.loc[trial.number]
        assert (row["zoo_math"], row["zoo_facts"]) == trial.values
        assert row["zoo_math_stderr"] == trial.stderr[0] or math.isnan(trial.stderr[0])
        for name, value in trial.params.items():
            assert row[f"params_{name}"] == value
    beaten = {
        a.number
        for a in record.trials
        for b in record.trials
        if all(x <= y for x, y in zip(a.values, b.values, strict=True)) and a.values != b.values
    }
    assert set(front.index) == {t.number for t in record.trials} - beaten
    assert front.loc[study.best("knee").number, "pick"].startswith("knee")
    finals = study.finals()
    assert set(finals["split"]) == {"validation", "test"}
    assert finals.groupby("split")["chosen"].sum().to_dict() == {"validation": 1, "test": 1}


def test_the_optuna_study_is_optunas_own(study: evomerge.Study) -> None:
    plain = study.optuna
    assert type(plain) is optuna.Study
    assert [tuple(t.values) for t in plain.trials] == [t.values for t in study.trials]


def test_a_notebook_shows_the_front_as_a_table_and_a_figure(study: evomerge.Study) -> None:
    shown = study._repr_html_()
    assert "6 complete of 6" in shown
    assert shown.count("<tr") >= len(study.front()) + 1
    figure = study.plot_front()
    drawn = {(x, y) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    rounded = {tuple(float(f"{value:.6g}") for value in trial.values) for trial in study.trials}
    assert rounded <= drawn
    assert repr(study).startswith("<Study whole: 6 complete of 6")


def test_trials_are_picked_by_number_name_or_themselves(study: evomerge.Study) -> None:
    assert study.best(3) == study.best("trial:3") == study.best(study.trials[3])
    assert study.best(study.front().index[0]).number == study.front().index[0]  # NumPy's integer
    with pytest.raises(StudyError, match=r"expected one of knee, chosen, best:zoo_math"):
        study.best("kne")
    with pytest.raises(StudyError, match=r"got 'trial:2\.5' which is unknown"):
        study.best(2.5)  # type: ignore[arg-type]


def test_items_are_of_a_split_that_the_study_has(study: evomerge.Study) -> None:
    expected = r"expected one of the splits search, validation, test, got 'train'"
    with pytest.raises(StudyError, match=expected):
        study.items(5, split="train")


def test_a_recipe_has_a_format_that_there_is(study: evomerge.Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected format recipe or mergekit, got 'yaml'"):
        study.export_recipe(5, tmp_path / "r.yaml", "yaml")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_report_is_a_file(study: evomerge.Study, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="expected a file for the report, got the folder"):
        study.report(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_report_replaces_only_a_report(study: evomerge.Study, tmp_path: Path) -> None:
    mine = tmp_path / "index.html"
    mine.write_text("<!doctype html>\n<title>Mine</title>\n")
    with pytest.raises(
        ConfigError, match=r"expected a new file for the report, .* is there already"
    ):
        study.report(mine)
    assert "Mine" in mine.read_text()
    page = study.report(tmp_path / "report.html", reload_s=5)
    assert "<body data-reload" in page.read_text()
    assert "<body data-reload" not in study.report(page).read_text()


def test_an_export_is_the_trial_and_a_recipe_merges_to_it(
    study: evomerge.Study, tmp_path: Path
) -> None:
    assert study.export(5, tmp_path / "model").equal
    named = study.export(5, tmp_path / "named", CheckpointForm(dtype="bfloat16"))
    assert named.rule.endswith("values must be equal"), "the base has it, too"
    merged = evomerge.merge(study.export_recipe(5, tmp_path / "r.yaml"), tmp_path / "merged")
    name = "model.safetensors"
    assert (merged / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    with pytest.raises(ConfigError, match="expected a file for format mergekit, got the folder"):
        study.export_recipe(5, tmp_path, "mergekit")


@pytest.mark.parametrize("format", ["recipe", "mergekit"])
def test_a_recipe_replaces_only_one_of_its_kind(
    study: evomerge.Study, tmp_path: Path, format: Literal["recipe", "mergekit"]
) -> None:
    mine = tmp_path / "README.md"
    mine.write_text("# Mine\n")
    with pytest.raises(ConfigError, match=f"expected a new file for format {format}, "):
        study.export_recipe(5, mine, format)
    assert mine.read_text() == "# Mine\n"
    first = study.export_recipe(5, tmp_path / "r.yaml", format).read_text()
    assert study.export_recipe(5, tmp_path / "r.yaml", format).read_text() == first


def test_every_merge_of_the_front_is_exported_as_asked(
    study: evomerge.Study, tmp_path: Path
) -> None:
    form = ("--dtype", "float32", "--max-shard-size", "1MB")
    ask = ["export", str(study.dir), "--pick", "front", "--out", str(tmp_path / "all"), *form]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    merges = [t.number for t in front(study.record) if not is_single_model(t.origin)]
    folders = sorted((tmp_path / "all").iterdir())
    assert sorted(folder.name for folder in folders) == sorted(f"trial-{n}" for n in merges)
    for folder in folders:
        shards = list(folder.glob("model-*.safetensors"))
        assert len(shards) > 1
        tensors = {k: t for shard in shards for k, t in load_file(shard).items()}
        assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_a_folder_of_a_front_holds_no_merge_that_has_left_it(
    study: evomerge.Study, tmp_path: Path
) -> None:
    ask = ["export", str(study.dir), "--pick", "front", "--format", "recipe"]
    (tmp_path / "trial-999.yaml").write_text("of an earlier front")
    refused = CliRunner().invoke(app, [*ask, "--out", str(tmp_path)])
    assert isinstance(refused.exception, ConfigError)
    assert "with trial-999.yaml, which is not on it" in str(refused.exception)
    assert [file.name for file in tmp_path.iterdir()] == ["trial-999.yaml"]


def test_there_is_a_study_or_a_fault(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="expected a study folder"):
        evomerge.Study.open(tmp_path)
