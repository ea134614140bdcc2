"""Deltas and adapters as experts of a merge, in memory and on disk."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.cache import trim_cache
from evomerge.errors import CheckpointError
from evomerge.merging import shared as shared_room
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.shared import SharedExpert
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.expert import Delta, open_expert
from evomerge.models.reference import AdapterRef, DeltaRef, ModelRef
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import save_tiny_llama

Family = dict[str, Path]
UP = "model.layers.0.mlp.up_proj.weight"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t.double() for n, t in load_file(folder / "model.safetensors").items()}


def save_adapter(folder: Path, seed: int = 3) -> Path:
    """Write a rank-2 adapter on one module, scale 2."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (0.1 * torch.randn(shape, generator=generator) for shape in ((2, 16), (40, 2)))
    folder.mkdir(parents=True)
    module = "base_model.model." + UP.removesuffix(".weight")
    factors = {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def mixed(family: Family, tmp_path: Path, method: str = "task_arithmetic") -> Recipe:
    adapter = save_adapter(tmp_path / "lora")
    return Recipe(
        {
            "one": str(family["one"]),
            "chat": DeltaRef(str(family["two"]), minus=str(family["three"])),
            "code": AdapterRef(str(adapter), on=str(family["base"])),
        },
        (Rule(method, {"coefficient": {"one": 0.3, "chat": 0.5, "code": 0.7}}),),
        base=str(family["base"]),
        dtype="float32",
    )


def merged(recipe: Recipe, out: Path) -> dict[str, torch.Tensor]:
    write_checkpoint(recipe, out)
    return tensors(out)


def test_a_chat_vector_is_target_plus_instruct_minus_base(
    tiny_family: Family, tmp_path: Path
) -> None:
    chat: ModelRef = DeltaRef(str(tiny_family["two"]), minus=str(tiny_family["one"]))
    recipe = Recipe(
        {"chat": chat},
        (Rule("task_arithmetic", {"coefficient": 0.6}),),
        base=str(tiny_family["three"]),
        dtype="float32",
    )
    found = merged(recipe, tmp_path)
    target, instruct, base = (tensors(tiny_family[n]) for n in ("three", "two", "one"))
    for name, tensor in found.items():
        wanted = target[name] + 0.6 * (instruct[name] - base[name])
        torch.testing.assert_close(tensor, wanted, rtol=0, atol=1e-6)


def test_expo_extrapolates_from_sft_through_aligned(tiny_family: Family, tmp_path: Path) -> None:
    """A20: θ_aligned + α (θ_aligned − θ_sft)."""
    sft, aligned = str(tiny_family["base"]), str(tiny_family["one"])
    recipe = Recipe(
        {"aligned": DeltaRef(aligned, minus=sft)},
        (Rule("task_arithmetic", {"coefficient": 0.3}),),
        base=aligned,
        dtype="float32",
    )
    found = merged(recipe, tmp_path)
    a, s = tensors(tiny_family["one"]), tensors(tiny_family["base"])
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, a[name] + 0.3 * (a[name] - s[name]), rtol=0, atol=1e-6)


def test_minus_the_base_is_the_model_itself(tiny_family: Family) -> None:
    base = Checkpoint(tiny_family["base"])
    reference = DeltaRef(str(tiny_family["one"]), minus=str(tiny_family["base"]))
    assert isinstance(open_expert(reference, base), Checkpoint)
    computed = Delta(base, Checkpoint(tiny_family["one"]), base)
    for name in base.names:
        own = Checkpoint(tiny_family["one"]).tensor(name).float()
        torch.testing.assert_close(computed.tensor(name), own, rtol=0, atol=1e-7)


def test_an_adapter_is_a_task_vector(tiny_family: Family, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "lora")
    recipe = Recipe(
        {"code": AdapterRef(str(adapter), on=str(tiny_family["base"]))},
        (Rule("task_arithmetic", {"coefficient": 0.5}),),
        base=str(tiny_family["base"]),
        dtype="float32",
    )
    found, base = merged(recipe, tmp_path / "out"), tensors(tiny_family["base"])
    factors = load_file(adapter / "adapter_model.safetensors")
    a, b = (next(t for n, t in factors.items() if side in n) for side in ("lora_A", "lora_B"))
    wanted = {**base, UP: base[UP] + 0.5 * 2.0 * (b.double() @ a.double())}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)


def test_an_adapter_needs_no_base(tiny_family: Family, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "lora")
    experts: dict[str, ModelRef] = {
        "code": AdapterRef(str(adapter), on=str(tiny_family["base"])),
        "one": str(tiny_family["one"]),
    }
    recipe = Recipe(experts, (Rule("linear", {"coefficient": 0.5}),), dtype="float32")
    found = merged(recipe, tmp_path / "out")
    assert torch.equal(
        found["lm_head.weight"],
        0.5 * (tensors(tiny_family["base"]) | {})["lm_head.weight"]
        + 0.5 * tensors(tiny_family["one"])["lm_head.weight"],
    )


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_ties"])
def test_candidates_are_the_folder_whether_shared_or_not(
    method: str, tiny_family: Family, tmp_path: Path
) -> None:
    recipe = mixed(tiny_family, tmp_path, method)
    write_checkpoint(recipe, tmp_path / "out")
    on_disk = load_file(tmp_path / "out" / "model.safetensors")
    for shared in (None, tmp_path / "cache"):
        candidate = LiveCandidate(Sources(recipe.base, recipe.experts, shared), recipe.dtype)
        candidate.materialise(recipe)
        live = candidate.model.state_dict()
        assert all(torch.equal(live[name], tensor) for name, tensor in on_disk.items())


def test_a_delta_without_a_base_is_refused(tiny_family: Family) -> None:
    chat = DeltaRef(str(tiny_family["two"]), minus=str(tiny_family["one"]))
    with pytest.raises(CheckpointError, match=r"experts\.chat: expected a base"):
        Sources(None, {"chat": chat})


def test_the_models_of_a_delta_must_fit_each_other(tiny_family: Family, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "deep", seed=0, n_layers=5)
    for model, minus in (("two", "deep"), ("deep", "two")):
        folders = {**tiny_family, "deep": tmp_path / "deep"}
        chat = DeltaRef(str(folders[model]), minus=str(folders[minus]))
        with pytest.raises(CheckpointError, match=r"experts\.chat.* model\.layers\.4\..*no such"):
            Sources(str(tiny_family["base"]), {"chat": chat})


def test_every_bad_expert_is_reported_at_once(tiny_family: Family, tmp_path: Path) -> None:
    experts: dict[str, ModelRef] = {
        "a": AdapterRef(str(tmp_path / "none"), on=str(tiny_family["base"])),
        "b": str(tmp_path / "nowhere"),
    }
    with pytest.raises(CheckpointError) as error:
        Sources(str(tiny_family["base"]), experts)
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        "experts.a",
        "experts.b",
    ]


def test_nan_in_a_factor_names_the_factor(tiny_family: Family, tmp_path: Path) -> None:
    file = save_adapter(tmp_path / "lora") / "adapter_model.safetensors"
    factors = load_file(file)
    key = next(name for name in factors if "lora_B" in name)
    factors[key][1, 1] = float("nan")
    save_file(factors, file)
    code = AdapterRef(str(tmp_path / "lora"), on=str(tiny_family["base"]))
    sources = Sources(str(tiny_family["base"]), {"code": code})
    with pytest.raises(CheckpointError, match=rf"1 NaN .* out of 80 in tensor {key} of {file}"):
        sources.check_finite()


def test_infinity_in_the_subtrahend_names_its_file(tiny_family: Family, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "old", seed=0)
    content = load_file(tmp_path / "old" / "model.safetensors")
    content[UP][0, 0] = float("inf")
    save_file(content, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    chat = DeltaRef(str(tiny_family["two"]), minus=str(tmp_path / "old"))
    with pytest.raises(CheckpointError, match=rf"1 NaN .* {UP} of {tmp_path}/old/model"):
        Sources(str(tiny_family["base"]), {"chat": chat}).check_finite()


def shared_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_shared_tensors_are_computed_once_and_mapped(tiny_family: Family, tmp_path: Path) -> None:
    recipe = mixed(tiny_family, tmp_path)
    first = Sources(recipe.base, recipe.experts, tmp_path / "cache")
    files = shared_files(tmp_path / "cache")
    assert len(files) == 2
    before = [file.stat().st_mtime_ns for file in files]
    second = Sources(recipe.base, recipe.experts, tmp_path / "cache")
    assert [file.stat().st_mtime_ns for file in shared_files(tmp_path / "cache")] == before
    plain = Sources(recipe.base, recipe.experts)
    for name in plain.names:
        for sources in (first, second):
            for a, b in zip(sources.tensors(name)[1], plain.tensors(name)[1], strict=True):
                assert torch.equal(a, b)
    assert isinstance(first.experts["one"], Checkpoint)
    assert isinstance(first.experts["code"], SharedExpert)
    assert set(load_file(shared_files(tmp_path / "cache")[0])) | set(
        load_file(shared_files(tmp_path / "cache")[1])
    ) == set(plain.names)


@pytest.mark.parametrize("damage", ["empty", "short", "foreign", "bit"])
def test_a_damaged_shared_file_is_rebuilt(damage: str, tiny_family: Family, tmp_path: Path) -> None:
    code = AdapterRef(str(save_adapter(tmp_path / "lora")), on=str(tiny_family["base"]))
    cache = tmp_path / "cache"
    wanted = Sources(str(tiny_family["base"]), {"code": code}, cache).tensors(UP)[1][0].clone()
    (file,) = shared_files(cache)
    content = file.read_bytes()
    other = {"x": torch.zeros(3)}
    match damage:
        case "empty":
            file.write_bytes(b"")
        case "short":
            file.write_bytes(content[:-10])
        case "bit":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case _:
            save_file(other, file)
    again = Sources(str(tiny_family["base"]), {"code": code}, cache)
    assert torch.equal(again.tensors(UP)[1][0], wanted)


def test_a_retrained_adapter_is_computed_anew(tiny_family: Family, tmp_path: Path) -> None:
    code = AdapterRef(str(save_adapter(tmp_path / "lora")), on=str(tiny_family["base"]))
    cache = tmp_path / "cache"
    before = Sources(str(tiny_family["base"]), {"code": code}, cache).tensors(UP)[1][0].clone()
    (tmp_path / "lora" / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 40}')
    after = Sources(str(tiny_family["base"]), {"code": code}, cache).tensors(UP)[1][0]
    assert not torch.equal(before, after)


def test_a_moved_or_touched_adapter_is_not_computed_again(
    tiny_family: Family, tmp_path: Path
) -> None:
    cache, base = tmp_path / "cache", str(tiny_family["base"])
    code = AdapterRef(str(save_adapter(tmp_path / "lora")), on=base)
    Sources(base, {"code": code}, cache)
    (file,) = shared_files(cache)
    before = file.stat()
    (tmp_path / "lora").rename(tmp_path / "moved")
    for part in (tmp_path / "moved").iterdir():
        os.utime(part, (1, 1))
    Sources(base, {"code": AdapterRef(str(tmp_path / "moved"), on=base)}, cache)
    assert shared_files(cache) == [file]
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_another_arithmetic_is_computed_anew(
    tiny_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = str(tiny_family["base"])
    code = AdapterRef(str(save_adapter(tmp_path / "lora")), on=base)
    Sources(base, {"code": code}, tmp_path / "cache")
    monkeypatch.setattr(shared_room, "_ARITHMETIC", shared_room._ARITHMETIC + 1)
    Sources(base, {"code": code}, tmp_path / "cache")
    assert len(shared_files(tmp_path / "cache")) == 2


def test_a_folder_that_cannot_be_used_only_costs_time(tiny_family: Family, tmp_path: Path) -> None:
    recipe = mixed(tiny_family, tmp_path)
    (tmp_path / "file").write_text("no folder")
    plain = Sources(recipe.base, recipe.experts)
    sources = Sources(recipe.base, recipe.experts, tmp_path / "file" / "experts")
    for a, b in zip(sources.tensors(UP)[1], plain.tensors(UP)[1], strict=True):
        assert torch.equal(a, b)


def open_shared(recipe: Recipe, cache: Path) -> None:
    Sources(recipe.base, recipe.experts, cache)


def test_processes_that_start_together_share_one_file(tiny_family: Family, tmp_path: Path) -> None:
    recipe = mixed(tiny_family, tmp_path)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=open_shared, args=(recipe, tmp_path / "cache")) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(shared_files(tmp_path / "cache")) == 2


def test_shared_files_in_use_are_not_trimmed(
    tiny_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", "0")
    code = AdapterRef(str(save_adapter(tmp_path / "lora")), on=str(tiny_family["base"]))
    folder = tmp_path / "kept" / "experts"
    sources = Sources(str(tiny_family["base"]), {"code": code}, folder)
    trim_cache("experts")
    assert len(shared_files(folder)) == 1
    del sources
    gc.collect()
    trim_cache("experts")
    assert shared_files(folder) == []
