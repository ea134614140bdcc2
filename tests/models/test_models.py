from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.errors import CheckpointError
from evomerge.models.architecture import Architecture, TensorRole
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.reference import absolute_reference, resolve_model


def test_roles_of_a_llama() -> None:
    names = [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]
    roles = Architecture({}, names).roles
    assert [roles[name] for name in names] == [
        TensorRole(0, "embedding", in_layer=False),
        TensorRole(0, "attention"),
        TensorRole(0, "norm"),
        TensorRole(1, "mlp"),
        TensorRole(1, "norm"),
        TensorRole(1, "norm", in_layer=False),
        TensorRole(1, "head", in_layer=False),
    ]


def test_roles_of_gpt2_and_neox() -> None:
    names = [
        "transformer.wte.weight",
        "transformer.h.0.ln_1.weight",
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.0.mlp.c_fc.weight",
        "transformer.ln_f.bias",
        "gpt_neox.layers.0.attention.query_key_value.weight",
        "embed_out.weight",
    ]
    roles = Architecture({}, names).roles
    kinds = ["embedding", "norm", "attention", "mlp", "norm", "attention", "head"]
    assert [roles[name].kind for name in names] == kinds


def test_names_without_layers_are_refused() -> None:
    with pytest.raises(CheckpointError, match="layer index"):
        Architecture({"model_type": "odd"}, ["weights"])


def test_a_checkpoint_is_read_lazily_and_completely(tiny_family: dict[str, Path]) -> None:
    checkpoint = Checkpoint(tiny_family["base"])
    assert "lm_head.weight" in checkpoint
    assert checkpoint.shape("lm_head.weight") == tuple(checkpoint.tensor("lm_head.weight").shape)
    assert checkpoint.names == tuple(sorted(checkpoint.shapes()))
    with pytest.raises(CheckpointError, match="expected tensor 'nope'"):
        checkpoint.tensor("nope")


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="safetensors only"):
        Checkpoint(tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("reference", ["./nowhere", "zoo:nobody", "no/such@thing", "what is this"])
def test_missing_models_are_refused_in_one_line(reference: str) -> None:
    with pytest.raises(CheckpointError) as error:
        resolve_model(reference)
    assert len(str(error.value).splitlines()) == 1


def test_references_become_independent_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert absolute_reference("zoo:base", tmp_path) == "zoo:base"
    assert absolute_reference("here", tmp_path) == str(tmp_path / "here")
    assert absolute_reference("owner/name@v1", tmp_path) == "owner/name@v1"
    assert absolute_reference("../x", tmp_path) == str(tmp_path.parent / "x")


def test_a_hub_id_resolves_through_the_local_cache(
    tiny_family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lay out a cached repository by hand: what a download leaves behind."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in tiny_family["base"].iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (repository / "refs").mkdir()
    for revision in ("main", "v1"):
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve_model("owner/name") == snapshot
    assert resolve_model("owner/name@v1") == snapshot
    with pytest.raises(CheckpointError, match="no such model"):
        resolve_model("owner/name@v2")
