"""Routers, shared and routed experts as module groups, whatever a family calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evomerge.errors import ConfigError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet
from tests.architectures import tiny_model

SPACE = {
    "method": "task_arithmetic",
    "modules": {
        "routers": {"part": "router"},
        "shared": {"part": "shared_experts"},
        "routed": {"part": "routed_experts"},
        "attention": ["attention"],
        "other": ["mlp", "norm", "embedding", "head"],
    },
    "genes": {"coefficient": {"range": [0.0, 1.0]}},
}
# By parameter of the live model, written by hand from transformers' code of each family.
ROUTERS = {
    "mixtral": ["mlp.gate.weight"],
    "gpt_oss": ["mlp.router.weight", "mlp.router.bias"],
    "glm4_moe": ["mlp.gate.weight", "mlp.gate.e_score_correction_bias"],
    "qwen2_moe": ["mlp.gate.weight", "mlp.shared_expert_gate.weight"],
}
QWEN2_MOE = {
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
}


@pytest.fixture(scope="module", params=ROUTERS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    settings = QWEN2_MOE if request.param == "qwen2_moe" else {}
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model(request.param, folder / name, seed, torch.float32, **settings)
    return folder


def models_of(folder: Path) -> ModelSet:
    base, experts = str(folder / "base"), {n: str(folder / n) for n in ("one", "two")}
    sources = Sources(base, experts)
    roles = {name: sources.architecture.roles[name] for name in sources.names}
    return ModelSet(base, experts, sources.architecture.n_layers, tensors=roles)


def group_of(parameter: str, family: str) -> str:
    if any(parameter.endswith(name) for name in ROUTERS[family]):
        return "routers"
    if ".shared_expert" in parameter:
        return "shared"
    if ".experts." in parameter:
        return "routed"
    is_attention = ".self_attn." in parameter and "norm" not in parameter
    return "attention" if is_attention else "other"


@torch.no_grad()
def test_parts_have_genes_of_their_own_and_frozen_ones_stay_the_base_s(
    family: Path, tmp_path: Path
) -> None:
    """In the live model, which fuses experts, in the folder, and by plain arithmetic."""
    models = models_of(family)
    space = build_space({**SPACE, "frozen": ["routers"]}, models)
    assert not [gene for gene in space.distributions if "routers" in gene]
    params = {gene: (1 + i) / 16 for i, gene in enumerate(space.distributions)}
    recipe = space.recipe(params)
    assert space.params(recipe) == pytest.approx(params)
    candidate = LiveCandidate(Sources(models.base, models.experts))
    candidate.materialise(recipe)
    write_checkpoint(recipe, tmp_path)
    base, one, two, folder = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (family / "base", family / "one", family / "two", tmp_path)
    )
    for name, tensor in candidate.model.state_dict().items():
        group = group_of(name, family.name)
        mix = [params.get(f"coefficient.{group}.{expert}", 0.0) for expert in ("one", "two")]
        wanted = base[name].double() + sum(
            c * (e[name].double() - base[name].double())
            for c, e in zip(mix, (one, two), strict=True)
        )
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-6)
        assert torch.equal(tensor, folder[name])
        assert group != "routers" or torch.equal(tensor, base[name])


def test_every_expert_is_a_group_where_files_keep_them_apart(family: Path) -> None:
    modules = {**SPACE["modules"], "routed": {"part": "routed_experts", "each": True}}  # type: ignore[dict-item]
    spec = {**SPACE, "modules": modules}
    if family.name == "gpt_oss":
        with pytest.raises(ConfigError, match=r"modules\.routed\.each: .*one tensor for all"):
            build_space(spec, models_of(family))
        return
    models = models_of(family)
    space = build_space(spec, models)
    n = {"glm4_moe": 4}.get(family.name, 3)
    assert {g for g in space.distributions if "routed" in g} == {
        f"coefficient.routed_{i}.{expert}" for i in range(n) for expert in ("one", "two")
    }
    recipe = space.recipe({gene: float("routed_1" in gene) for gene in space.distributions})
    stored = load_file(family / "base" / "model.safetensors")
    moved = {
        name
        for name in stored
        if recipe.rules[recipe.rule_for(name, models.roles[name])].parameters["coefficient"]
        == {"one": 1.0, "two": 1.0}
    }
    assert moved == {name for name in stored if ".experts.1." in name}


def test_a_dense_model_has_no_such_parts(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model("llama", tmp_path / name, seed)
    with pytest.raises(ConfigError, match=r"modules\.routers\.part: expected mixtures of experts"):
        build_space(SPACE, models_of(tmp_path))


@pytest.mark.parametrize(
    ("frozen", "fault"),
    [
        (["router"], r"frozen: 'router' is not one of the groups routers, "),
        (["routers", "shared", "routed", "attention", "other"], "frozen: expected a group with"),
    ],
)
def test_what_cannot_be_frozen_is_refused(frozen: list[str], fault: str) -> None:
    groups = {"routers": {"names": "gate"}, "shared": {"names": "shared"}}
    modules = {**SPACE["modules"], **groups, "routed": {"names": "experts"}}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=fault):
        build_space(
            {**SPACE, "modules": modules, "frozen": frozen}, ModelSet("b", {"a": "m"}, n_layers=0)
        )
