"""Aligned experts: permuted models come back, exactly, and are experts like any other."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.errors import CheckpointError, ConfigError
from evomerge.merging.sources import Sources
from evomerge.models.expert import content_digest
from evomerge.models.reference import AlignedRef, ModelRef
from evomerge.recipe.files import dump_recipe, load_recipe
from evomerge.recipe.recipe import Recipe, Rule
from tests.alignment.permuted import FAMILIES, grouped_heads, save_permuted
from tests.architectures import tiny_model

PROMPTS = "".join(f"w{i} w{(7 * i + 3) % 29} w{(11 * i) % 29} w{(i * i) % 29}\n" for i in range(40))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))


def save_pair(
    tmp_path: Path, family: str = "llama", *, noise: float = 0.01, with_stream: bool = False
) -> Path:
    """Write a base, an expert near it in ``near``, and the same with its units permuted."""
    tiny_model(family, tmp_path / "base", 0, torch.float32, **grouped_heads(family))
    shutil.copytree(tmp_path / "base", tmp_path / "near")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    torch.manual_seed(1)
    moved = {name: t + noise * torch.randn_like(t) for name, t in tensors.items()}
    save_file(moved, tmp_path / "near" / "model.safetensors", {"format": "pt"})
    save_permuted(tmp_path / "near", tmp_path / "permuted", seed=2, with_stream=with_stream)
    return tmp_path


def aligned(folder: Path, align: str, **settings: str) -> Sources:
    reference = AlignedRef(str(folder / "permuted"), align, **settings)  # type: ignore[arg-type]
    return Sources(str(folder / "base"), {"e": reference})


def differing(sources: Sources, folder: Path) -> list[str]:
    """Name the tensors of the expert that are not those of the model before it was permuted."""
    near: Mapping[str, torch.Tensor] = load_file(folder / "near" / "model.safetensors")
    expert = sources.experts["e"]
    return [name for name in near if not torch.equal(expert.tensor(name).float(), near[name])]


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_bring_a_permuted_expert_back_exactly(family: str, tmp_path: Path) -> None:
    folder = save_pair(tmp_path, family)
    assert differing(Sources(str(folder / "base"), {"e": str(folder / "permuted")}), folder)
    assert not differing(aligned(folder, "weights"), folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_stream_everything_comes_back(family: str, tmp_path: Path) -> None:
    folder = save_pair(tmp_path, family, with_stream=True)
    assert differing(aligned(folder, "weights"), folder)
    assert not differing(aligned(folder, "weights_and_stream"), folder)


@pytest.mark.parametrize("family", ["llama", "olmo2", "phi3"])
def test_activations_bring_it_back_too(family: str, tmp_path: Path) -> None:
    folder = save_pair(tmp_path, family, noise=0.002)
    (folder / "prompts.txt").write_text(PROMPTS)
    sources = aligned(folder, "activations", prompts=str(folder / "prompts.txt"))
    assert not differing(sources, folder)


def test_transport_finds_what_is_there_and_shares_between_equals(tmp_path: Path) -> None:
    folder = save_pair(tmp_path, noise=0.0)
    file, at = folder / "near" / "model.safetensors", "model.layers.0.mlp."
    near = load_file(file)
    ups = near[f"{at}up_proj.weight"]
    for tensor in (near[f"{at}gate_proj.weight"], ups, near[f"{at}down_proj.weight"].T):
        tensor[1] = tensor[0]  # two neurons that are one
    ups[0], ups[1] = ups[0] + 0.01, ups[1] - 0.01  # and differ by less than the entropy blurs
    save_file(near, file, {"format": "pt"})
    shutil.rmtree(folder / "permuted")
    save_permuted(folder / "near", folder / "permuted", seed=2, with_stream=False)
    sources = Sources(
        str(folder / "near"), {"e": AlignedRef(str(folder / "permuted"), "transport")}
    )
    near[f"{at}up_proj.weight"] = torch.cat([ups[:2].mean(0).expand(2, -1), ups[2:]])
    for name, expected in near.items():
        found = sources.experts["e"].tensor(name)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.005, msg=name)


def test_recipes_keep_how_an_expert_is_aligned(tmp_path: Path) -> None:
    one = AlignedRef(str(tmp_path / "m"), "activations", prompts=str(tmp_path / "p.txt"))
    recipe = Recipe({"e": one}, (Rule("task_arithmetic"),), base="zoo:base")
    for beside in (None, tmp_path):
        (tmp_path / "r.yaml").write_text(dump_recipe(recipe, beside=beside))
        assert load_recipe(tmp_path / "r.yaml") == recipe
    others: tuple[ModelRef, ...] = (one.model, replace(one, align="weights", prompts=None))
    assert recipe.digest not in {replace(recipe, experts={"e": o}).digest for o in others}


@pytest.mark.parametrize(
    ("expert", "fault"),
    [
        ("{model: m, align: force}", "expected align to be one of weights, .*, got force"),
        ("{model: m, align: activations}", "expected prompts: FILE beside align: activations"),
        ("{model: m, align: weights, prompts: p}", "nowhere else, got some for weights"),
    ],
)
def test_wrong_references_are_one_fault(expert: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"base: b\nexperts: {{x: {expert}}}\nmethod: linear\n")
    with pytest.raises(ConfigError, match=f"experts.x: .*{fault}"):
        load_recipe(tmp_path / "r.yaml")


def test_what_cannot_be_aligned_is_said_in_one_line(tmp_path: Path) -> None:
    folder = save_pair(tmp_path, "mixtral")
    (folder / "prompts.txt").write_text(PROMPTS)
    with pytest.raises(CheckpointError, match=r"experts.e: expected matrices of linear layers.*w2"):
        aligned(folder, "activations", prompts=str(folder / "prompts.txt"))
    with pytest.raises(CheckpointError, match=r"a base that .* can be aligned with"):
        Sources(None, {"e": AlignedRef(str(folder / "permuted"), "weights")})
    tiny_model("mixtral", folder / "other", 0, num_attention_heads=2, head_dim=8)
    with pytest.raises(CheckpointError, match="layers, neurons and heads of the base"):
        Sources(str(folder / "other"), {"e": AlignedRef(str(folder / "permuted"), "weights")})


def test_it_is_computed_once_and_told_from_other_alignments(tmp_path: Path) -> None:
    folder = save_pair(tmp_path)
    shared = tmp_path / "experts"
    digests = set()
    for align in ("weights", "weights_and_stream", "transport"):
        reference = AlignedRef(str(folder / "permuted"), align)
        for _ in range(2):
            sources = Sources(str(folder / "base"), {"e": reference}, shared)
            digests.add(content_digest(sources.experts["e"]))
    assert len(digests) == len(list(shared.glob("*.safetensors"))) == 3
    assert len(list((tmp_path / "cache" / "aligned").glob("*.safetensors"))) == 3
