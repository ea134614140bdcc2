"""Masks of a merge: the published formulas in float64, and experts that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from evomerge.api.masking import mask, restore
from evomerge.cli.main import app
from evomerge.errors import EvomergeError
from tests.tiny import save_tiny_llama, save_tokenizer
from tests.vision_language import text_model, vlm

NAMES = ("one", "two", "three")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three experts in float32."""
    root = tmp_path_factory.mktemp("masked")
    base = save_tiny_llama(root / "base", seed=0, dtype=torch.float32, n_layers=1)
    for seed, name in enumerate(NAMES, 1):
        save_tiny_llama(root / name, seed=seed, near=base, dtype=torch.float32, n_layers=1)
    return root


def recipe(root: Path, method: str = "task_arithmetic", **others: Any) -> dict[str, Any]:
    experts = {name: str(root / name) for name in NAMES}
    return {"base": str(root / "base"), "experts": experts, "method": method, **others}


def tensors(folder: Path) -> Tensors:
    """All tensors in float64, as transformers loads them."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


def changes(root: Path) -> tuple[Tensors, dict[str, Tensors]]:
    base = tensors(root / "base")
    experts = {name: tensors(root / name) for name in NAMES}
    return base, {e: {n: t[n] - base[n] for n in base} for e, t in experts.items()}


def test_tall_masks_are_the_published_ones(root: Path, tmp_path: Path) -> None:
    ratios = {"one": 0.2, "two": 0.6}
    written = mask(recipe(root), tmp_path / "kept", mask_ratio=ratios)
    base, tau = changes(root)
    merged = {name: sum(tau[e][name] for e in NAMES) for name in base}
    for expert in NAMES:
        restore(tmp_path / "kept", expert, tmp_path / expert)
        found, n_kept = tensors(tmp_path / expert), 0
        ratio = ratios.get(expert, 0.4)
        for name, own in tau[expert].items():
            keep = own.abs() >= ratio * (merged[name] - own).abs()
            expected = base[name] + keep * merged[name]
            # Where an element lies on the edge, rounding decides.
            edge = (own.abs() - ratio * (merged[name] - own).abs()).abs() < 1e-6
            assert torch.allclose(found[name][~edge], expected[~edge], atol=1e-6)
            n_kept += int(keep.sum())
        n = sum(tensor.numel() for tensor in base.values())
        assert written.masks.experts[expert].density == pytest.approx(n_kept / n, abs=1e-3)
        assert 0.05 < n_kept / n < 0.95


def test_emr_masks_and_rescalers_are_the_published_ones(root: Path, tmp_path: Path) -> None:
    written = mask(recipe(root, "emr"), tmp_path / "kept")
    assert written.masks.by == "emr"
    base, tau = changes(root)
    unified = {}
    for name in base:
        all_tau = torch.stack([tau[e][name] for e in NAMES])
        sign = torch.where(all_tau.sum(dim=0) > 0, 1.0, -1.0).double()
        unified[name] = sign * (all_tau * sign).clamp_min(0).amax(dim=0)
    for expert in NAMES:
        keep = {name: tau[expert][name] * unified[name] > 0 for name in base}
        own = sum(t.abs().sum() for t in tau[expert].values())
        rescale = own / sum((unified[name] * keep[name]).abs().sum() for name in base)
        assert written.masks.experts[expert].rescale == pytest.approx(float(rescale), rel=1e-5)
        restore(tmp_path / "kept", expert, tmp_path / expert)
        found = tensors(tmp_path / expert)
        for name in base:
            expected = base[name] + rescale * keep[name] * unified[name]
            assert torch.allclose(found[name], expected, atol=2e-5)


def test_one_expert_and_equal_ones_come_back_whole(root: Path, tmp_path: Path) -> None:
    for method, coefficient in (("task_arithmetic", 0.5), ("emr", 1.0)):
        twins = {"one": str(root / "one"), "twin": str(root / "one")}
        content = recipe(root, method, experts=twins, parameters={"coefficient": coefficient})
        written = mask(content, tmp_path / method)
        assert restore(tmp_path / method, "twin", tmp_path / "twin") == tmp_path / "twin"
        found, own = tensors(tmp_path / "twin"), tensors(root / "one")
        assert all(torch.allclose(found[name], own[name], atol=1e-5) for name in own)
        assert written.masks.experts["one"].rescale == pytest.approx(1, rel=1e-5)


def test_an_expert_that_is_the_base_comes_back_as_the_base(root: Path, tmp_path: Path) -> None:
    for by in ("tall", "emr"):
        experts = {"same": str(root / "base"), "one": str(root / "one")}
        written = mask(recipe(root, "emr", experts=experts), tmp_path / by, by=by)
        restore(tmp_path / by, "same", tmp_path / "out")
        found, base = tensors(tmp_path / "out"), tensors(root / "base")
        assert all(torch.equal(found[name], base[name]) for name in base)
        assert written.masks.experts["same"].rescale == 1
    everything = mask(recipe(root), tmp_path / "all", mask_ratio=0.0)
    assert everything.masks.experts["one"].density == 1
    restore(tmp_path / "all", "one", tmp_path / "out")
    found, merge = (
        load_file(f / "model.safetensors") for f in (tmp_path / "out", tmp_path / "all")
    )
    assert all(torch.equal(found[name], merge[name]) for name in merge)


def test_a_mask_takes_a_bit_per_element(root: Path, tmp_path: Path) -> None:
    written = mask(recipe(root), tmp_path / "kept")
    stored = load_file(tmp_path / "kept" / "masks" / "000.safetensors")
    model = load_file(tmp_path / "kept" / "model.safetensors")
    assert {n: t.numel() for n, t in stored.items()} == {
        name: -(-tensor.numel() // 8) for name, tensor in model.items()
    }
    assert written.mask_bytes == sum(bits.numel() for bits in stored.values())
    assert written.merge_bytes == sum(tensor.nbytes for tensor in model.values())
    base, tau = changes(root)
    name = "model.layers.0.mlp.up_proj.weight"
    own, merged = tau["one"][name], sum(tau[e][name] for e in NAMES)
    bits = np.unpackbits(stored[name].numpy())[: own.numel()]
    keep = own.abs() >= 0.4 * (merged - own).abs()
    assert (bits == keep.flatten().numpy()).mean() > 0.999
    assert base.keys() == tau["one"].keys()


def test_what_has_no_masks_or_other_ones_is_said_in_a_line(root: Path, tmp_path: Path) -> None:
    kept, out = tmp_path / "kept", tmp_path / "out"
    with pytest.raises(EvomergeError, match="base: expected a base"):
        mask({**recipe(root, "linear"), "base": None}, kept)
    with pytest.raises(EvomergeError) as error:
        mask(recipe(root), kept, mask_ratio={"ones": 0.2, "two": -1.0})
    assert "got 'ones'; did you mean" in str(error.value)
    assert "mask_ratio.two: expected a number of at least 0, got -1.0" in str(error.value)
    assert not kept.exists()
    with pytest.raises(EvomergeError, match="a merge with masks, got"):
        restore(root / "base", "one", out)
    mask(recipe(root), kept)
    with pytest.raises(EvomergeError, match="one of one, two, three, got 'onee'"):
        restore(kept, "onee", out)
    with pytest.raises(EvomergeError, match="a folder of its own"):
        restore(kept, "one", kept)
    changed = load_file(kept / "model.safetensors")
    changed["model.norm.weight"] += 1
    save_file(changed, kept / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EvomergeError, match="the merge that the masks were made of, got another"):
        restore(kept, "one", out)


def test_parts_that_are_not_the_merges_are_refused(tmp_path: Path) -> None:
    """An expert with a vision tower of its own would come back with that of another."""
    base = vlm(tmp_path / "base", "llava", 0)
    with torch.no_grad():
        base.lm_head.weight.add_(1)
    base.save_pretrained(tmp_path / "tuned")
    save_tokenizer(tmp_path / "tuned")
    text_model(tmp_path / "text", "llava", 1)
    names = ("tuned", "text")
    content = {"base": str(tmp_path / "base"), "experts": {n: str(tmp_path / n) for n in names}}
    mask(content | {"method": "task_arithmetic"}, tmp_path / "kept")
    restore(tmp_path / "kept", "tuned", tmp_path / "out")
    with torch.no_grad():
        base.model.vision_tower.embeddings.class_embedding.add_(1)
    base.save_pretrained(tmp_path / "tuned")
    with pytest.raises(EvomergeError, match=r"experts\.tuned: expected .*class_embedding to be"):
        mask(content | {"method": "task_arithmetic"}, tmp_path / "again")


def test_the_commands_say_what_is_kept(root: Path, tmp_path: Path) -> None:
    file, kept = tmp_path / "recipe.yaml", tmp_path / "kept"
    file.write_text(yaml.safe_dump(recipe(root)))
    ratios = ["--mask-ratio", "one=0.3", "--mask-ratio", "two=0.5"]
    done = CliRunner().invoke(app, ["masks", str(file), "--out", str(kept), *ratios])
    assert done.exit_code == 0, done.output
    assert "with 3 masks of" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["restore", str(kept), "one", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
    for wrong in (["--mask-ratio", "x"], ["--mask-ratio", "0.1", "--mask-ratio", "one=1"]):
        done = CliRunner().invoke(app, ["masks", str(file), "--out", str(kept), *wrong])
        assert "expected --mask-ratio" in str(done.exception)
