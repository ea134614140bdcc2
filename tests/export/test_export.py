from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
import torch
import yaml

from evomerge.config.presets import Presets
from evomerge.config.suites import load_suites
from evomerge.export.card import ScoreRow, model_card
from evomerge.export.model import Rescored, export_model, export_text, push_folder
from evomerge.export.rounding import FoldError
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.study.records import Objective, StudyRecord, TrialRecord

EXPERTS = {"math": "zoo:math", "tuned": "owner/tuned@v1"}
OBJECTIVE = Objective("zoo_math", "exact_match", "maximize", "zoo_math")


def trial(recipe: Recipe, value: float = 0.5) -> TrialRecord:
    now = datetime.now(tz=timezone.utc)
    return TrialRecord(
        3, "complete", "search", (value,), (0.1,), {}, recipe.as_data(), {}, None, now, now
    )


def test_the_card_holds_recipe_scores_and_hub_parents() -> None:
    recipe = Recipe(EXPERTS, (Rule("ties", {"density": 0.3}),), base="owner/base")
    rows = [ScoreRow("this merge", "test", ("0.712 ± 0.010",))]
    card = model_card("mine", recipe, objectives=["zoo_math"], scores=rows)
    _, header, body = card.split("---\n", 2)
    meta = yaml.safe_load(header)
    assert meta["base_model"] == ["owner/base", "owner/tuned"]
    assert meta["base_model_relation"] == "merge"
    assert "| this merge | test | 0.712 ± 0.010 |" in body
    inside = body.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(inside)["rules"] == recipe.as_data()["rules"]


def test_an_export_that_scores_differently_is_noticed() -> None:
    assert Rescored(("a",), (0.5,), (0.5,), (0.1,)).equal
    assert not Rescored(("a",), (0.5,), (0.52,), (0.1,)).equal
    assert Rescored(("a",), (0.5,), (0.52,), (0.1,), FoldError(1e-3, 1e-2)).equal
    assert not Rescored(("a",), (0.5,), (0.52,), (0.01,), FoldError(1e-3, 1e-2)).equal
    assert Rescored(("a",), (0.5,), (0.52,), (0.1,), is_same_engine=False).equal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_device_may_round_differently_but_not_score_differently(dtype) -> None:
    def rescored(value: float, again: float, stderr: float, device: str | None) -> Rescored:
        return Rescored(
            ("a",), (value,), (again,), (stderr,), trial_device=device, device="cpu", dtype=dtype
        )

    for device in ("NVIDIA H100", None):
        assert rescored(0.5, 0.515, 0.01, device).equal
        assert rescored(0.5, 0.54, 0.05, device).equal
        assert not rescored(0.5, 0.56, 0.05, device).equal
        close = rescored(2600.0, 2610.0, math.nan, device)  # a perplexity; 0.4 %
        assert close.equal == (dtype == torch.bfloat16)  # whose numbers are 0.8 % apart
        assert "may differ by a standard error" in close.rule
        assert str(dtype).removeprefix("torch.") in close.rule
        assert (device or "not recorded") in close.rule
    assert not rescored(0.5, 0.5 + 1e-9, 0.05, "cpu").equal
    assert rescored(0.5, 0.5, 0.05, "cpu").rule == "on cpu as the trial was: values must be equal"


def test_exporting_scores_the_folder_it_wrote(tmp_path: Path) -> None:
    experts = {"math": "zoo:math", "list": "zoo:list"}
    recipe = Recipe(experts, (Rule("task_arithmetic", {"coefficient": 0.6}),), base="zoo:base")
    wrong = trial(recipe, value=2.0)  # no accuracy: the comparison must notice
    wrong = replace(wrong, stderr=(math.nan,))  # as of a metric without one
    study = StudyRecord("s", (OBJECTIVE,), (wrong,), (), 1)
    suites = load_suites(["zoo"], Presets(), Path.cwd())
    rescored = export_model(study, wrong, tmp_path / "out", suites)
    assert 0.0 <= rescored.folder[0] <= 1.0
    assert not rescored.equal
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "| this merge | search | 2.000 |" in card
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["base"] == "zoo:base"


def test_a_path_is_exported_with_what_folding_its_scales_did(tmp_path: Path) -> None:
    experts = {"math": "zoo:math", "list": "zoo:list"}
    path = (Hop("math", 0), Hop("math", 0), *(Hop("merged", n, 0.9) for n in (1, 2)))
    recipe = Recipe(experts, (Rule("task_arithmetic"),), base="zoo:base", path=path)
    study = StudyRecord("s", (OBJECTIVE,), (trial(recipe),), (), 1)
    suites = load_suites(["zoo"], Presets(), Path.cwd())
    rescored = export_model(study, study.trials[0], tmp_path / "out", suites)
    assert rescored.folding is not None
    assert 0 < rescored.folding.mean < rescored.folding.largest < 0.02
    card = (tmp_path / "out" / "README.md").read_text()
    assert "It runs 4 layers, chosen and put in order one by one:\n2 of math, 2 of merged." in card
    assert f"Rounding moves logits by (relative) {rescored.folding}." in card


def test_a_trial_as_a_recipe_reads_back(tmp_path: Path) -> None:
    from evomerge.recipe.files import load_recipe

    recipe = Recipe({"a": "zoo:math"}, (Rule("linear"),), base="zoo:base", seed=4)
    (tmp_path / "r.yaml").write_text(export_text(trial(recipe), "recipe"))
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_a_push_without_a_network_is_an_error(tmp_path: Path) -> None:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    with pytest.raises((HfHubHTTPError, OfflineModeIsEnabled, OSError)):
        push_folder(tmp_path, "owner/name")
