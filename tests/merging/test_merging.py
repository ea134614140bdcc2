"""Candidates and folders on tiny real checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.errors import CheckpointError, RecipeError
from evomerge.merging import candidate as candidate_module
from evomerge.merging.candidate import LiveCandidate, load_model
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.lowering import PlannedTensor, lower
from evomerge.merging.residency import Residency
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Dtype, Recipe, Rule, Selector
from tests.architectures import MIXED_DTYPES, tiny_model
from tests.tiny import save_tiny_llama

Family = dict[str, Path]


def recipe(family: Family, *rules: Rule, dtype: str | None = None) -> Recipe:
    experts = {name: str(family[name]) for name in ("one", "two", "three")}
    return Recipe(experts, rules, base=str(family["base"]), dtype=dtype, seed=5)  # type: ignore[arg-type]


def layerwise(family: Family) -> Recipe:
    mix = {"one": 0.2, "two": 0.9, "three": 0.4}
    return recipe(
        family,
        Rule("ties", {"coefficient": mix, "density": 0.4}, Selector(layers=(0, 2))),
        Rule("dare_ties", {"coefficient": mix, "density": 0.6}, Selector(kinds=("mlp", "head"))),
        Rule("linear", {"coefficient": mix}),
    )


def test_the_folder_is_the_candidate_byte_for_byte(tiny_family: Family, tmp_path: Path) -> None:
    wanted = layerwise(tiny_family)
    candidate = LiveCandidate(Sources(wanted.base, wanted.experts))
    candidate.materialise(wanted)
    write_checkpoint(wanted, tmp_path)
    live = candidate.model.state_dict()
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor.view(torch.int16), live[name].view(torch.int16)), name


def test_shards_hold_the_same_tensors_as_one_file(tiny_family: Family, tmp_path: Path) -> None:
    wanted = layerwise(tiny_family)
    write_checkpoint(wanted, tmp_path / "whole")
    write_checkpoint(wanted, tmp_path / "parts", shard_bytes=4000)
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert set(whole) == set(index["weight_map"])
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / "parts" / file)[name], whole[name])
    AutoModelForCausalLM.from_pretrained(tmp_path / "parts")
    assert not list((tmp_path / "parts").glob("*.tmp"))


def test_candidates_do_not_depend_on_the_one_before(tiny_family: Family) -> None:
    first, second = layerwise(tiny_family), recipe(tiny_family, Rule("task_arithmetic"))
    fresh = LiveCandidate(Sources(first.base, first.experts))
    fresh.materialise(second)
    used = LiveCandidate(Sources(first.base, first.experts))
    for wanted in (first, second, first, second):
        used.materialise(wanted)
    for a, b in zip(fresh.model.parameters(), used.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_only_tensors_whose_plan_changed_are_written(tiny_family: Family) -> None:
    first = layerwise(tiny_family)
    candidate = LiveCandidate(Sources(first.base, first.experts))
    candidate.materialise(first)
    with torch.no_grad():  # a mark that a rewrite would erase
        candidate.model.model.norm.weight.fill_(7.0)
        candidate.model.model.layers[0].mlp.up_proj.weight.fill_(7.0)
    changed = Rule("ties", {"density": 0.9}, Selector(layers=(0, 2)))
    candidate.materialise(recipe(tiny_family, changed, *first.rules[1:]))
    assert torch.all(candidate.model.model.norm.weight == 7.0)
    assert not torch.any(candidate.model.model.layers[0].mlp.up_proj.weight == 7.0)


def test_base_and_expert_are_reproduced_exactly(tiny_family: Family, tmp_path: Path) -> None:
    for name, mix in (("base", (0.0, 0.0)), ("two", (1.0, 0.0))):
        coefficients = {"one": 0.0, "two": mix[0], "three": mix[1]}
        rule = Rule("task_arithmetic", {"coefficient": coefficients})
        write_checkpoint(recipe(tiny_family, rule), tmp_path / name)
        merged = load_file(tmp_path / name / "model.safetensors")
        for key, tensor in load_file(tiny_family[name] / "model.safetensors").items():
            assert torch.equal(merged[key], tensor), key


def test_dtype_of_the_recipe_is_that_of_the_folder(tiny_family: Family, tmp_path: Path) -> None:
    write_checkpoint(recipe(tiny_family, Rule("linear"), dtype="float32"), tmp_path)
    assert all(t.dtype == torch.float32 for t in load_file(tmp_path / "model.safetensors").values())
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", seed=0, tied=True)
    save_tiny_llama(tmp_path / "one", seed=1, tied=True, near=base)
    tied = Recipe(
        {"one": str(tmp_path / "one")},
        (Rule("task_arithmetic", {"coefficient": 0.5}),),
        base=str(tmp_path / "base"),
    )
    candidate = LiveCandidate(Sources(tied.base, tied.experts))
    candidate.materialise(tied)
    model = candidate.model
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    write_checkpoint(tied, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_models_of_other_shapes_are_refused(tiny_family: Family, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "deep", seed=0, n_layers=5)
    with pytest.raises(CheckpointError, match=r"experts\.deep: .* got 9 more in "):
        Sources(str(tiny_family["base"]), {"deep": str(tmp_path / "deep")})


def test_nan_is_an_error_that_names_tensor_and_file(tiny_family: Family, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, seed=0)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    sources = Sources(str(tiny_family["base"]), {"bad": str(tmp_path)})
    with pytest.raises(CheckpointError, match=r"1 NaN .* model\.norm\.weight of .*safetensors"):
        sources.check_finite()


def test_sources_are_never_written_to(tiny_family: Family) -> None:
    wanted = layerwise(tiny_family)
    before = {n: (f / "model.safetensors").read_bytes() for n, f in tiny_family.items()}
    candidate = LiveCandidate(Sources(wanted.base, wanted.experts))
    candidate.materialise(wanted)
    assert before == {n: (f / "model.safetensors").read_bytes() for n, f in tiny_family.items()}


def store_the_head_too(folder: Path) -> None:
    """Write a tied model's one tensor under both of its names, as some tools do."""
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("stored_twice", [(), ("base",), ("one",), ("base", "one")])
def test_a_tied_tensor_is_merged_and_written_once(
    stored_twice: tuple[str, ...], tmp_path: Path
) -> None:
    base = save_tiny_llama(tmp_path / "base", seed=0, tied=True)
    save_tiny_llama(tmp_path / "one", seed=1, tied=True, near=base)
    for name in stored_twice:
        store_the_head_too(tmp_path / name)
    tied = Recipe(
        {"one": str(tmp_path / "one")}, (Rule("task_arithmetic"),), base=str(tmp_path / "base")
    )
    sources = Sources(tied.base, tied.experts)
    assert "lm_head.weight" not in sources.names
    candidate = LiveCandidate(sources)
    candidate.materialise(tied)
    write_checkpoint(tied, tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(sources.names)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in candidate.model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


class Interruption(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("then", ["the same again", "the one before"])
def test_what_an_interrupted_merge_left_half_done_is_done_again(
    then: str, tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = layerwise(tiny_family), recipe(tiny_family, Rule("task_arithmetic"))
    sources = Sources(first.base, first.experts)
    candidate = LiveCandidate(sources)
    candidate.materialise(first)
    feed = candidate._feed

    def interrupted(tensors: Iterable[PlannedTensor]) -> None:
        feed(islice(tensors, 10))
        raise Interruption

    monkeypatch.setattr(candidate, "_feed", interrupted)
    with pytest.raises(Interruption):
        candidate.materialise(second)
    monkeypatch.undo()
    fresh = LiveCandidate(sources)
    for live in (candidate, fresh):
        live.materialise(second if then == "the same again" else first)
    for a, b in zip(candidate.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_recipe_that_cannot_be_lowered_changes_nothing(tiny_family: Family) -> None:
    first = layerwise(tiny_family)
    candidate = LiveCandidate(Sources(first.base, first.experts))
    candidate.materialise(first)
    before = {name: t.clone() for name, t in candidate.model.state_dict().items()}
    without_norms = Selector(kinds=("mlp", "attention", "embedding", "head"))
    with pytest.raises(RecipeError):
        candidate.materialise(recipe(tiny_family, Rule("linear", {}, without_norms)))
    assert all(torch.equal(t, before[n]) for n, t in candidate.model.state_dict().items())


@pytest.mark.parametrize("residency", ["resident", "streamed"])
def test_candidates_are_the_same_wherever_experts_are(
    residency: Residency, tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = LiveCandidate(Sources(str(tiny_family["base"]), layerwise(tiny_family).experts))
    monkeypatch.setattr(candidate_module, "residency_of", lambda *_: residency)
    other = LiveCandidate(Sources(str(tiny_family["base"]), layerwise(tiny_family).experts))
    for wanted in (layerwise(tiny_family), recipe(tiny_family, Rule("linear"))):
        mapped.materialise(wanted)
        other.materialise(wanted)
        for a, b in zip(mapped.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", MIXED_DTYPES)
def test_parameters_that_stay_in_float32_do_so_on_disk(
    family: str, dtype: Dtype, tmp_path: Path
) -> None:
    """What was scored is what is exported, to the last bit of a router."""
    for seed, name in enumerate(("base", "one")):
        tiny_model(family, tmp_path / name, seed, torch.float32)
    wanted = Recipe(
        {"one": str(tmp_path / "one")},
        (Rule("task_arithmetic", {"coefficient": 0.3}),),
        base=str(tmp_path / "base"),
        dtype=dtype,
    )
    candidate = LiveCandidate(Sources(wanted.base, wanted.experts), wanted.dtype)
    candidate.materialise(wanted)
    live = candidate.model.state_dict()
    if (family, dtype) != ("gpt_oss", "bfloat16"):
        assert {t.dtype for t in live.values()} == {torch.float32, getattr(torch, dtype)}
    write_checkpoint(wanted, tmp_path / "out")
    exported = load_model(str(tmp_path / "out"), "auto").state_dict()
    for name, tensor in live.items():
        assert tensor.dtype == exported[name].dtype, name
        assert torch.equal(tensor, exported[name]), name


def test_widen_knows_which_tensors_are_embeddings(tiny_family: Family) -> None:
    wanted = recipe(tiny_family, Rule("widen"))
    plans = dict(lower(wanted, Sources(wanted.base, wanted.experts)))
    by_row = {name for name, plan in plans.items() if plan.row_scale}
    assert by_row == {"model.embed_tokens.weight"}
    assert all(plan.column_scale for name, plan in plans.items() if name not in by_row)
