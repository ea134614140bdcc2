from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.merging.size import layers_run, n_parameters
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import save_tiny_llama


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_as_transformers_counts_them(tmp_path: Path, tied: bool) -> None:
    model = save_tiny_llama(tmp_path, seed=0, tied=tied)
    sources = Sources(str(tmp_path), {"one": str(tmp_path)})
    recipe = Recipe({"one": str(tmp_path)}, (Rule("linear", {"coefficient": 1.0}),))
    layers = layers_run(recipe, sources.architecture.n_layers)
    assert layers == (0, 1, 2, 3)
    assert n_parameters(layers, sources) == model.num_parameters()


def test_every_run_of_a_layer_is_a_copy(tmp_path: Path) -> None:
    four = save_tiny_llama(tmp_path / "four", seed=0)
    six = save_tiny_llama(tmp_path / "six", seed=0, n_layers=6)
    sources = Sources(str(tmp_path / "four"), {"one": str(tmp_path / "four")})
    assert n_parameters((0, 1, 1, 2, 1, 3), sources) == six.num_parameters()
    assert n_parameters((0,), sources) < four.num_parameters()
