"""Every family of ``tests/architectures.py``: roles of tensors, and views into the live model."""

from __future__ import annotations

import json
import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import CheckpointError
from evomerge.models.architecture import Architecture, MixtureRole, TensorRole
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.parameters import check_live, contiguous_output, live_tensors
from tests.architectures import FAMILIES, tiny_config, tiny_model

N_LAYERS = 3
# By family, what follows the layer number, by kind; written by hand. Then what is outside.
LLAMA = {
    "attention": r"self_attn\.[qkvo]_proj\.weight",
    "mlp": r"mlp\.(gate|up|down)_proj\.weight",
    "norm": r"(input|post_attention)_layernorm\.weight",
}
OUTSIDE = {"embedding": r"model\.embed_tokens\.weight", "norm": r"model\.norm\.weight"}
HEAD = {"head": r"lm_head\.weight"}
FOUR_NORMS = r"(input|post_attention|pre_feedforward|post_feedforward)_layernorm\.weight"
QK_NORMS = r"self_attn\.[qk]_norm\.weight"
RULES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "llama": (LLAMA, OUTSIDE | HEAD),
    "llama_tied": (LLAMA, OUTSIDE),
    "mistral": (LLAMA, OUTSIDE | HEAD),
    "qwen2": (
        LLAMA | {"attention": r"self_attn\.([qkv]_proj\.(weight|bias)|o_proj\.weight)"},
        OUTSIDE | HEAD,
    ),
    "qwen3": (LLAMA | {"norm": rf"{LLAMA['norm']}|{QK_NORMS}"}, OUTSIDE | HEAD),
    "gemma2": (LLAMA | {"norm": FOUR_NORMS}, OUTSIDE),
    "gemma3": (LLAMA | {"norm": rf"{FOUR_NORMS}|{QK_NORMS}"}, OUTSIDE),
    "phi3": (
        LLAMA
        | {
            "attention": r"self_attn\.(qkv|o)_proj\.weight",
            "mlp": r"mlp\.(gate_up|down)_proj\.weight",
        },
        OUTSIDE | HEAD,
    ),
    "olmo2": (
        LLAMA | {"norm": rf"post_(attention|feedforward)_layernorm\.weight|{QK_NORMS}"},
        OUTSIDE | HEAD,
    ),
    "gpt_neox": (
        {
            "attention": r"attention\.(query_key_value|dense)\.(weight|bias)",
            "mlp": r"mlp\.dense_(h_to_4h|4h_to_h)\.(weight|bias)",
            "norm": r"(input|post_attention)_layernorm\.(weight|bias)",
        },
        {
            "embedding": r"gpt_neox\.embed_in\.weight",
            "norm": r"gpt_neox\.final_layer_norm\.(weight|bias)",
            "head": r"embed_out\.weight",
        },
    ),
    "gpt2": (
        {
            "attention": r"attn\.(c_attn|c_proj)\.(weight|bias)",
            "mlp": r"mlp\.(c_fc|c_proj)\.(weight|bias)",
            "norm": r"ln_[12]\.(weight|bias)",
        },
        {
            "embedding": r"transformer\.(wte|wpe)\.weight",
            "norm": r"transformer\.ln_f\.(weight|bias)",
        },
    ),
    "mixtral": (
        LLAMA | {"mlp": r"block_sparse_moe\.(gate|experts\.[012]\.w[123])\.weight"},
        OUTSIDE | HEAD,
    ),
    "qwen3_moe": (
        LLAMA
        | {
            "mlp": r"mlp\.(gate|experts\.[012]\.(gate|up|down)_proj)\.weight",
            "norm": rf"{LLAMA['norm']}|{QK_NORMS}",
        },
        OUTSIDE | HEAD,
    ),
}


ROUTER = r"(block_sparse_moe|mlp)\.gate\.weight"
ROUTED = r"(block_sparse_moe|mlp)\.experts\..*"


def expected_part(inside_layer: str) -> MixtureRole | None:
    parts: dict[str, MixtureRole] = {ROUTER: "router", ROUTED: "routed_experts"}
    return next((part for rule, part in parts.items() if re.fullmatch(rule, inside_layer)), None)


def expected_role(family: str, name: str) -> TensorRole:
    inside, outside = RULES[family]
    layered = re.fullmatch(r"(?:model\.layers|gpt_neox\.layers|transformer\.h)\.(\d)\.(.+)", name)
    rules, rest = (inside, layered[2]) if layered else (outside, name)
    kinds = [kind for kind, pattern in rules.items() if re.fullmatch(pattern, rest)]
    assert len(kinds) == 1, f"the rules of {family} say {kinds} of {name}"
    if layered:
        return TensorRole(int(layered[1]), kinds[0], part=expected_part(rest))
    return TensorRole(0 if kinds[0] == "embedding" else N_LAYERS - 1, kinds[0], in_layer=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("architectures")
    for family in FAMILIES:
        tiny_model(family, root / family, seed=1)
        tiny_model(family, root / f"{family}_other", seed=2)
    return {folder.name: folder for folder in root.iterdir()}


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(torch.arange(2, 26).reshape(2, 12)).logits


@torch.no_grad()
def fill(model: PreTrainedModel, checkpoint: Checkpoint) -> None:
    for name, view in live_tensors(model, checkpoint.names).items():
        with contiguous_output(view) as out:
            out.copy_(checkpoint.tensor(name))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_has_the_layer_and_kind_that_a_reader_would_give_it(
    family: str, folders: dict[str, Path]
) -> None:
    checkpoint = Checkpoint(folders[family])
    architecture = Architecture(checkpoint.config, checkpoint.names)
    assert architecture.source == "structure"
    assert architecture.n_layers == N_LAYERS
    assert architecture.roles == {n: expected_role(family, n) for n in checkpoint.names}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_alone_say_the_same_as_the_structure(family: str, folders: dict[str, Path]) -> None:
    checkpoint = Checkpoint(folders[family])
    guessed = Architecture({"model_type": "made_up"}, checkpoint.names)
    assert guessed.source == "names"
    assert guessed.n_layers == N_LAYERS
    told = {n: expected_role(family, n) for n in checkpoint.names}
    assert guessed.roles == {n: replace(role, part=None) for n, role in told.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_filled_through_its_views_is_the_other_model(
    family: str, folders: dict[str, Path]
) -> None:
    other = Checkpoint(folders[f"{family}_other"])
    model, wanted = load(folders[family]), logits(load(other.folder))
    live = live_tensors(model, other.names)
    assert set(live) == set(other.names)
    check_live(live, Checkpoint(folders[family]))
    assert not torch.equal(logits(model), wanted)
    fill(model, other)
    assert torch.equal(logits(model), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_tensors_copied_by_name_loads_as_the_live_model(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    other = Checkpoint(folders[f"{family}_other"])
    model = load(folders[family])
    fill(model, other)
    live = live_tensors(model, other.names)
    save_file(
        {name: view.contiguous() for name, view in live.items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    shutil.copy(folders[family] / "config.json", tmp_path)
    assert torch.equal(logits(load(tmp_path)), logits(model))


def test_experts_of_a_mixture_are_views_of_one_parameter(folders: dict[str, Path]) -> None:
    model = load(folders["mixtral"])
    live = live_tensors(model, Checkpoint(folders["mixtral"]).names)
    view = live["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    fused = model.state_dict()["model.layers.1.mlp.experts.gate_up_proj"]
    view.fill_(7.0)
    assert view.is_contiguous()
    assert torch.equal(fused[2, 40:], torch.full((40, 16), 7.0, dtype=fused.dtype))
    assert int((fused == 7.0).sum()) == view.numel()


def test_a_checkpoint_in_the_fused_format_needs_no_parts(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    load(folders["mixtral"]).save_pretrained(tmp_path, save_original_format=False)
    checkpoint = Checkpoint(tmp_path)
    name = "model.layers.0.mlp.experts.down_proj"
    assert live_tensors(load(tmp_path), checkpoint.names)[name].shape == (3, 16, 40)
    role = Architecture(checkpoint.config, checkpoint.names).roles[name]
    assert role == TensorRole(0, "mlp", part="routed_experts")


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_a_checkpoint_of_the_bare_decoder_lacks_its_prefix(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    prefix = {"gpt2": "transformer.", "mixtral": "model."}[family]
    tensors = load_file(folders[family] / "model.safetensors")
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    # Old GPT-2 files store the causal mask, which no parameter takes.
    extra = {"h.0.attn.bias": torch.ones(1, 1, 4, 4)} if family == "gpt2" else {}
    save_file(bare | extra, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(folders[family] / "config.json", tmp_path)
    checkpoint = Checkpoint(tmp_path)
    model = load(tmp_path)
    live = live_tensors(model, checkpoint.names)
    assert set(live) == set(bare)
    check_live(live, checkpoint)
    architecture = Architecture(checkpoint.config, checkpoint.names)
    assert architecture.source == "structure"
    for name in bare:
        role = expected_role(family, name if name == "lm_head.weight" else prefix + name)
        assert architecture.roles[name] == role
    assert set(architecture.roles) == set(checkpoint.names)


def test_tied_tensors_stored_twice_are_written_once(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    tensors = load_file(folders["llama_tied"] / "model.safetensors")
    twice = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(twice, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(folders["llama_tied"] / "config.json", tmp_path)
    checkpoint = Checkpoint(tmp_path)
    architecture = Architecture(checkpoint.config, checkpoint.names)
    assert architecture.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert architecture.roles["lm_head.weight"] == TensorRole(N_LAYERS - 1, "head", in_layer=False)
    assert set(live_tensors(load(tmp_path), checkpoint.names)) == set(tensors)


def test_a_head_alone_stands_for_the_tied_embedding(folders: dict[str, Path]) -> None:
    names = set(Checkpoint(folders["llama_tied"]).names) - {"model.embed_tokens.weight"}
    live = live_tensors(load(folders["llama_tied"]), names | {"lm_head.weight"})
    assert "lm_head.weight" in live


def test_a_tensor_without_a_place_is_refused(folders: dict[str, Path]) -> None:
    names = Checkpoint(folders["llama"]).names
    with pytest.raises(CheckpointError, match=r"got 1 others, e\.g\. model\.extra\.weight"):
        live_tensors(load(folders["llama"]), [*names, "model.extra.weight"])


@pytest.mark.parametrize(
    ("family", "lacking", "parameter"),
    [
        ("llama", "lm_head.weight", "lm_head.weight"),
        ("mixtral", "model.layers.0.block_sparse_moe.experts.1.w2.weight", "experts.down_proj"),
    ],
)
def test_a_parameter_left_unwritten_is_refused(
    family: str, lacking: str, parameter: str, folders: dict[str, Path]
) -> None:
    names = set(Checkpoint(folders[family]).names) - {lacking}
    with pytest.raises(CheckpointError, match=rf"for 1 of them, e\.g\. .*{re.escape(parameter)}"):
        live_tensors(load(folders[family]), names)


def test_other_values_in_a_view_are_noticed(folders: dict[str, Path]) -> None:
    checkpoint = Checkpoint(folders["mixtral"])
    live = live_tensors(load(folders["mixtral"]), checkpoint.names)
    w1, w3 = (f"model.layers.2.block_sparse_moe.experts.2.w{i}.weight" for i in (1, 3))
    live[w1], live[w3] = live[w3], live[w1]
    with pytest.raises(CheckpointError, match="changes it on loading"):
        check_live(live, checkpoint)


def test_what_is_written_to_a_transposed_view_arrives() -> None:
    stored = torch.zeros(3, 5)
    with contiguous_output(stored.T) as out:
        assert out.is_contiguous()
        out.copy_(torch.arange(15.0).reshape(5, 3))
    assert torch.equal(stored.T, torch.arange(15.0).reshape(5, 3))
    with contiguous_output(stored) as out:
        assert out is stored


def test_an_unknown_model_type_falls_back_to_the_commonest_numbered_modules() -> None:
    names = ["wte.weight", "tower.0.conv.weight", "head.norm.weight"]
    names += [f"net.cells.{i}.{part}.weight" for i in range(4) for part in ("attn.q", "up")]
    architecture = Architecture({"model_type": "made_up"}, names)
    assert (architecture.source, architecture.n_layers) == ("names", 4)
    assert architecture.roles["net.cells.2.attn.q.weight"] == TensorRole(2, "attention")
    assert architecture.roles["tower.0.conv.weight"] == TensorRole(3, "mlp", in_layer=False)
    assert architecture.roles["wte.weight"] == TensorRole(0, "embedding", in_layer=False)


def test_names_without_layers_are_refused_with_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r"layer index.*'odd'.*upgrade") as error:
        Architecture({"model_type": "odd"}, ["weights"])
    assert "\n" not in str(error.value)


def test_a_config_that_fits_no_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json.*llama"):
        Architecture({"model_type": "llama", "num_hidden_layers": "many"}, ["model.norm.weight"])


def test_a_config_stored_for_other_surroundings_is_read_all_the_same(
    folders: dict[str, Path],
) -> None:
    checkpoint = Checkpoint(folders["llama"])
    config = {
        **checkpoint.config,
        "attn_implementation": "flash_attention_2",
        "auto_map": {"AutoModelForCausalLM": "modeling_remote.RemoteModel"},
    }
    assert Architecture(config, checkpoint.names).source == "structure"


def test_a_model_that_needs_a_missing_package_is_read_by_names(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("expected package timm")

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", refuse)
    checkpoint = Checkpoint(folders["llama"])
    assert Architecture(checkpoint.config, checkpoint.names).source == "names"


def test_the_structure_of_a_large_model_is_read_without_its_memory() -> None:
    """Its parameters would take some 180 GB."""
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    config = json.loads(tiny_config("mixtral").to_json_string()) | sizes
    names = [
        f"model.layers.{i}.block_sparse_moe.experts.{e}.w{j}.weight"
        for i in range(32)
        for e in range(3)
        for j in (1, 2, 3)
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert Architecture(config, names).n_layers == 32
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 1e9
