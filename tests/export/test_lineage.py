"""What a card says of the models that a merge is made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from evomerge.export.card import Findings, model_card
from evomerge.export.lineage import Ancestor, ancestors, common_license, license_note, parents
from evomerge.models.reference import AdapterRef
from evomerge.models.zoo import zoo_path
from evomerge.recipe.files import recipe_from_data


@pytest.fixture
def licensed(tmp_path: Path) -> Path:
    folder = tmp_path / "tuned"
    shutil.copytree(zoo_path("math"), folder)
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: llama3\n---\n# Tuned\n")
    return folder


def test_models_are_known_by_content_and_licence(licensed: Path, tmp_path: Path) -> None:
    found = ancestors([str(licensed), str(zoo_path("math")), str(zoo_path("list")), str(licensed)])
    assert [a.license for a in found] == ["llama3", None, None]
    assert found[0].content == found[1].content != found[2].content
    assert all(len(a.content) == 32 for a in found)


@pytest.mark.parametrize("card", ["no header", "---\nlicense: [\n---\n", "---\n- a\n---\n", "\xff"])
def test_a_card_without_a_readable_header_declares_nothing(card: str, licensed: Path) -> None:
    (licensed / "README.md").write_text(card, encoding="latin-1")
    assert ancestors([str(licensed)])[0].license is None


def test_licences_that_differ_are_said_and_one_is_declared() -> None:
    mit, apache, silent = (Ancestor(n, "0" * 32, n) for n in ("mit", "apache-2.0", "none"))
    silent = Ancestor("c", "0" * 32, None)
    assert common_license([mit, mit]) == "mit"
    assert license_note([mit, mit]) is None
    assert common_license([mit, apache]) is None
    assert "apache-2.0, mit" in str(license_note([mit, apache]))
    assert "1 of its 2 models declare no licence" in str(license_note([mit, silent]))
    assert license_note([silent, silent]) is None


def test_the_card_carries_the_lineage_without_places(licensed: Path) -> None:
    recipe = recipe_from_data(
        {"base": "zoo:base", "experts": {"m": str(licensed)}, "method": "task_arithmetic"}
    )
    card = model_card("mine", recipe, Findings(), descent=ancestors(parents(recipe, "search")))
    assert "| `tuned` |" in card
    assert str(licensed) not in card
    assert "llama3" in card
    assert "license" not in yaml.safe_load(card.split("---\n")[1])


def test_an_adapter_and_what_it_is_on_are_two_ancestors(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"factors")
    found = ancestors([AdapterRef(adapter=str(tmp_path), on=str(zoo_path("base")))])
    assert [Path(a.reference).name for a in found] == [tmp_path.name, "base"]
