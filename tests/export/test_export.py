from __future__ import annotations

import ast
import json
import math
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from xml.etree import ElementTree

import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from evomerge.analysis.forgetting import Change, ForgettingRow
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.export.card import CardRow, Findings, model_card
from evomerge.export.hub import open_repository, push_folder
from evomerge.export.model import export_model, export_text
from evomerge.export.rescored import Rescored
from evomerge.export.rounding import FoldError
from evomerge.merging.finite import NonFinite
from evomerge.merging.folder import write_checkpoint
from evomerge.models.reference import resolve_model
from evomerge.models.zoo import zoo_path
from evomerge.recipe.files import dump_recipe, load_recipe
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import load_suites
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
    rows = [CardRow("this merge", "test", ("0.712 ± 0.010",))]
    card = model_card("mine", recipe, Findings(["zoo_math"], rows))
    _, header, body = card.split("---\n", 2)
    meta = yaml.safe_load(header)
    assert meta["base_model"] == ["owner/base", "owner/tuned"]
    assert meta["base_model_relation"] == "merge"
    assert "| this merge | test | 0.712 ± 0.010 |" in body
    inside = body.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(inside)["rules"] == recipe.as_data()["rules"]


NASTY = (
    *("plain_name", "a|b", "x\n\n# Heading", "<script>alert(1)</script>", "[click](http://x.y)"),
    *(
        "```\nevil",
        "`",
        "\\|",
        "![i](http://x/y.png)",
        "&lt;b&gt;",
        "_so_ *much* ~~of~~ it",
        "a: b",
    ),
    *('"); import os  # ', "{{ name }}", "---", "- item: [", "https://example.org"),
)


def rendered(markdown: str) -> ElementTree.Element:
    """Render as the Hub does, with tables; only well-formed markup comes through."""
    parser = MarkdownIt("commonmark", {"xhtmlOut": True}).enable("table")
    return ElementTree.fromstring(f"<div>{parser.render(markdown)}</div>")


def texts(page: ElementTree.Element, path: str) -> list[str]:
    return ["".join(found.itertext()) for found in page.findall(path)]


@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_as_they_are_whatever_they_hold(name: str) -> None:
    recipe = Recipe({name: "zoo:math"}, (Rule("ties"),), base="zoo:base")
    change = Change(f"expert:{name}", 0.1, 0.0, 0.2)
    row = ForgettingRow(3, "search", True, name, "maximize", 0.5, 0.1, 1.0, change, change, 0.0)
    card = model_card(
        name,
        recipe,
        Findings(
            objectives=[name, "other"],
            scores=[CardRow(f"expert:{name} (#1)", "test", ("0.5", "0.6"))],
            forgetting=[row],
            searched={name: name},
        ),
    )
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "transformers"
    page, line = rendered(body), " ".join(name.split())
    assert texts(page, "h1") == [line]
    assert texts(page, "h2") == ["Scores", "Tasks the search never saw", "Recipe"]
    experts, scores, forgetting = page.findall("table")
    assert texts(experts, ".//td") == [line, "zoo:math"]
    assert texts(scores, ".//th")[2:] == [line, "other"]
    assert texts(scores, ".//td")[0] == f"expert:{line} (#1)"
    assert texts(forgetting, ".//td")[0] == line
    assert texts(forgetting, ".//td")[-1].endswith(f"(expert:{line})")
    assert texts(page, "p[strong]/code")[-2:] == [line, line]
    code, recipe_yaml = texts(page, "pre")
    assert yaml.safe_load(recipe_yaml)["experts"] == {name: "zoo:math"}
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert {ast.literal_eval(call.args[0]) for call in calls} == {name}
    assert not [found for tag in ("script", "img", "a", "em") for found in page.iter(tag)]


def test_the_card_says_what_is_not_finite() -> None:
    recipe = Recipe(EXPERTS, (Rule("ties"),), base="owner/base")
    found = NonFinite({"lm_head.weight": 3}, 40)
    card = model_card("mine", recipe, Findings(), non_finite=found)
    assert "**Not finite.** The tensors hold 3 NaN or infinite elements in 1 of 40 tensors" in card
    finite = NonFinite({}, 40)
    assert "Not finite" not in model_card("mine", recipe, Findings(), non_finite=finite)


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
    assert f"Rounding moves logits by (relative) {rescored.folding};" in card
    assert 0 < rescored.folding.epsilon < 0.02
    assert f"by {rescored.folding.epsilon:.1e}." in card


def test_a_trial_as_a_recipe_reads_back(tmp_path: Path) -> None:
    recipe = Recipe({"a": "zoo:math"}, (Rule("linear"),), base="zoo:base", seed=4)
    (tmp_path / "r.yaml").write_text(export_text(trial(recipe), "recipe", tmp_path / "r.yaml"))
    assert load_recipe(tmp_path / "r.yaml") == recipe


@pytest.fixture
def local_models(tmp_path: Path) -> Recipe:
    """Models in folders whose place says who works where."""
    for name in ("base", "math"):
        shutil.copytree(zoo_path(name), tmp_path / "home" / "alice" / name)
    home = (tmp_path / "home" / "alice").resolve()
    config = json.loads((home / "base" / "config.json").read_text())
    (home / "base" / "config.json").write_text(json.dumps({**config, "_name_or_path": str(home)}))
    settings = json.loads((home / "base" / "tokenizer_config.json").read_text())
    settings |= {"name_or_path": str(home / "base"), "pad_token": "/"}
    (home / "base" / "tokenizer_config.json").write_text(json.dumps(settings))
    experts = {"math": str(home / "math"), "hub": "owner/tuned@v1", "list": "zoo:list"}
    return Recipe(
        experts, (Rule("task_arithmetic", {"coefficient": 0.6}),), base=str(home / "base")
    )


def test_a_card_names_local_models_without_their_place(local_models: Recipe) -> None:
    card = model_card("mine", local_models, Findings())
    assert "alice" not in card
    assert "models of `base`" in card
    for row in ("| math | `math` |", "| hub | `owner/tuned@v1` |", "| list | `zoo:list` |"):
        assert row in card
    assert local_models.digest in card


def test_a_written_merge_names_no_place_and_its_recipe_still_runs(
    local_models: Recipe, tmp_path: Path
) -> None:
    recipe = replace(local_models, experts={"math": local_models.experts["math"]})
    out = tmp_path / "home" / "alice" / "merges" / "one"
    write_checkpoint(recipe, out)
    for file in out.iterdir():
        assert file.suffix == ".safetensors" or "alice" not in file.read_text(), file
    assert json.loads((out / "tokenizer_config.json").read_text())["pad_token"] == "/"
    again = load_recipe(out / "recipe.yaml")
    assert again == recipe
    assert again.digest == recipe.digest
    write_checkpoint(again, tmp_path / "again")
    weights = [folder / "model.safetensors" for folder in (out, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("format", ["recipe", "mergekit"])
def test_an_exported_file_names_folders_from_where_it_lies(
    format: str, local_models: Recipe, tmp_path: Path
) -> None:
    recipe = replace(
        local_models, experts={"math": local_models.experts["math"], "list": "zoo:list"}
    )
    file = tmp_path / "home" / "alice" / "found.yaml"
    file.write_text(export_text(trial(recipe), format, file))
    assert str(tmp_path) not in file.read_text()
    assert "./math" in file.read_text()
    again = load_recipe(file)
    assert (again.base, again.experts["math"]) == (recipe.base, recipe.experts["math"])
    assert resolve_model(str(again.experts["list"])).samefile(zoo_path("list"))


class Hub:
    """Repositories by name: whether private, and what was put into them."""

    private: ClassVar[dict[str, bool]] = {}
    files: ClassVar[dict[str, bytes]] = {}

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repository, private)

    def repo_info(self, repository: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private[repository])

    def upload_folder(self, *, repo_id: str, folder_path: Path, ignore_patterns: list[str]) -> str:
        for file in folder_path.iterdir():
            if file.name not in ignore_patterns:
                self.files[file.name] = file.read_bytes()
        return "first"

    def upload_file(self, *, path_or_fileobj: bytes, path_in_repo: str, repo_id: str) -> str:
        self.files[path_in_repo] = path_or_fileobj
        return "second"


def test_a_push_is_private_unless_it_is_asked_to_be_public(
    local_models: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    open_repository("me/new", is_public=False)
    open_repository("me/open", is_public=True)
    assert Hub.private == {"me/new": True, "me/open": False}
    with pytest.raises(ConfigError, match="me/open exists and is public; add --public to publish"):
        open_repository("me/open", is_public=False)
    out = tmp_path / "out"
    out.mkdir()
    (out / "recipe.yaml").write_text(dump_recipe(local_models, beside=out))
    (out / "config.json").write_text("{}")
    push_folder(out, "me/new")
    assert Hub.files["config.json"] == b"{}"
    published = Hub.files["recipe.yaml"].decode()
    assert "alice" not in published
    assert yaml.safe_load(published)["experts"] == {
        "math": "math", "hub": "owner/tuned@v1", "list": "zoo:list",
    }  # fmt: skip


def test_a_push_without_a_network_is_an_error() -> None:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    with pytest.raises((HfHubHTTPError, OfflineModeIsEnabled, OSError)):
        open_repository("owner/name", is_public=False)
