from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from evomerge.errors import ConfigError
from evomerge.merging.sources import Sources
from evomerge.runs.parts import build_space
from evomerge.space.depth import families
from evomerge.space.protocol import ModelSet
from tests.architectures import tiny_model

PER_TENSOR = {
    "method": "task_arithmetic",
    "depth": "per_layer",
    "modules": "per_tensor",
    "genes": {"coefficient": {"range": [0.0, 1.0]}},
}


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe", "glm4_moe"])
def test_every_tensor_has_a_gene_of_its_own_and_siblings_at_other_depths(
    family: str, tmp_path: Path
) -> None:
    tiny_model(family, tmp_path / "base", 0, torch.float32)
    base = str(tmp_path / "base")
    sources = Sources(base, {"one": base})
    roles = {name: sources.architecture.roles[name] for name in sources.names}
    space = build_space(PER_TENSOR, ModelSet(base, {"one": base}, 3, tensors=roles))
    params = {gene: i / 1000 for i, gene in enumerate(space.distributions)}
    recipe = space.recipe(params)
    found = [
        recipe.rules[recipe.rule_for(name, role)].parameters["coefficient"]["one"]
        for name, role in roles.items()
    ]
    assert sorted(found) == [*params.values()]
    alike = {re.sub(r"\.\d+\.", ".", name, count=1) for name in roles}
    assert len(set(families(space.depths).values())) == len(alike) < len(roles)
    assert space.params(recipe) == pytest.approx(params)


def test_without_depth_all_layers_share_the_genes_of_a_tensor() -> None:
    models = ModelSet("zoo:base", {"a": "zoo:math", "b": "zoo:list"}, n_layers=6)
    space = build_space({**PER_TENSOR, "depth": "global"}, models)
    kinds = ("attention", "mlp", "norm", "embedding", "head")
    assert {*space.distributions} == {f"coefficient.{k}.{e}" for k in kinds for e in "ab"}


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modules.*per_tensor"):
        build_space({**PER_TENSOR, "modules": "each"}, ModelSet("b", {"a": "m"}, n_layers=2))
