"""Aligned experts: permuted models come back, exactly, and are experts like any other."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

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


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
def test_activations_bring_it_back_too(family: str, tmp_path: Path) -> None:
    folder = save_pair(tmp_path, family, noise=0.002)
    (folder / "prompts.txt").write_text(PROMPTS)
    sources = aligned(folder, "activations", prompts=str(folder / "prompts.txt"))
    assert not differing(sources, folder)


def test_transport_spreads_neurons_and_moves_heads(tmp_path: Path) -> None:
    folder = save_pair(tmp_path, noise=0.0)
    expert = aligned(folder, "transport").experts["e"]
    near = load_file(folder / "near" / "model.safetensors")
    at = "model.layers.0."
    assert torch.equal(expert.tensor(f"{at}self_attn.q_proj.weight"), near[f"{at}self_attn.q_proj.weight"])
    ups = [m[f"{at}mlp.up_proj.weight"] for m in (near, load_file(folder / "permuted" / "model.safetensors"))]
    found = expert.tensor(f"{at}mlp.up_proj.weight")
    assert not torch.equal(found, ups[0])
    assert (found - ups[0]).norm() < 0.5 * (ups[1] - ups[0]).norm()
