"""The package of docs/extending.md, installed from what the page says, and its code, run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.config.presets import Presets, copy_preset
from evomerge.methods import registry
from evomerge.samplers import sampler_names
from tests.pages import DOCS, blocks, run_page

tomllib = pytest.importorskip("tomllib")  # Python 3.11

PAGE = DOCS / "extending.md"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, with the entry points of the page as pip would note them."""
    project = next(block.text for block in blocks(PAGE) if block.file == "pyproject.toml")
    lines = []
    for group, points in tomllib.loads(project)["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    noted = tmp_path / "mine-0.1.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 0.1\n")
    (noted / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._table.cache_clear()
    yield tmp_path
    registry._table.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def test_a_method_a_sampler_and_a_metric_of_another_package_search_together(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(package)
    copy_preset(Presets().names("evaluators")["zoo"], package)
    study = run_page(PAGE, package)["study"]
    assert {"equal_norms"} <= set(registry.method_names())
    assert sampler_names()["wander"] == "an example: few genes, one objective"
    searched = [trial for trial in study.record.trials if trial.origin == "search"]
    assert [trial.state for trial in searched] == ["complete"] * 3
    scores = study.item_scores()
    assert set(scores["metric"]) == {"words_right"}
    assert {0.0, 0.5, 1.0} >= set(scores["score"]), "answers have two words"
