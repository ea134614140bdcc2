"""Paths: live, and written as plain checkpoints that another process reads without evomerge."""

from __future__ import annotations

import copy
import gc
import json
import math
import random
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import RecipeError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.lowering import lower
from evomerge.merging.sources import Sources
from evomerge.models.reference import DeltaRef
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Dtype, Recipe, Rule
from tests.architectures import FAMILIES, MIXED_DTYPES, tiny_model
from tests.merging import paths

Answers = tuple[torch.Tensor, torch.Tensor]
N_LAYERS = 3


def random_path(family: str, *, scaled: bool) -> tuple[Hop, ...]:
    """Between 4 and 8 hops over all four sources, at least one of each."""
    rng = random.Random(f"{family} {scaled}")
    sources = ["base", "one", "two", "merged", *rng.choices(["one", "merged"], k=rng.randrange(5))]
    rng.shuffle(sources)
    scales = [math.exp(rng.uniform(-0.6, 0.6)) if scaled else 1.0 for _ in sources]
    return tuple(
        Hop(s, rng.randrange(N_LAYERS), scale) for s, scale in zip(sources, scales, strict=True)
    )


def recipe_of(folder: Path, path: tuple[Hop, ...]) -> Recipe:
    experts = {name: str(folder / name) for name in ("one", "two")}
    return Recipe(experts, (Rule("linear"),), base=str(folder / "base"), path=path)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        for seed, name in enumerate(("base", "one", "two")):
            tiny_model(family, root / family / name, seed, torch.float32)
    return root


@pytest.fixture(scope="module")
def both_ways(families: Path) -> dict[tuple[str, bool], tuple[Answers, Answers]]:
    """Answers of the live candidate and of the written folder, by family and scaled or not."""
    live = {}
    for family in FAMILIES:
        folder = families / family
        plain = recipe_of(folder, ())
        candidate = LiveCandidate(Sources(plain.base, plain.experts))
        for scaled in (False, True):
            recipe = recipe_of(folder, random_path(family, scaled=scaled))
            candidate.materialise(recipe)
            live[family, scaled] = paths.answers(candidate.model)
            write_checkpoint(recipe, folder / f"out {scaled}")
    folders = {key: families / key[0] / f"out {key[1]}" for key in live}
    subprocess.run([sys.executable, paths.__file__, *map(str, folders.values())], check=True)
    return {key: (live[key], torch.load(folders[key] / paths.FILE)) for key in live}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_without_scales_is_the_same_model_live_and_on_disk(
    both_ways: dict[tuple[str, bool], tuple[Answers, Answers]], family: str
) -> None:
    (live, live_tokens), (folder, folder_tokens) = both_ways[family, False]
    assert torch.equal(live, folder)
    assert torch.equal(live_tokens, folder_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_with_scales_is_the_same_function_live_and_on_disk(
    both_ways: dict[tuple[str, bool], tuple[Answers, Answers]], family: str
) -> None:
    (live, live_tokens), (folder, folder_tokens) = both_ways[family, True]
    assert (live - folder).abs().max() <= 1e-5 * live.abs().max()
    assert torch.equal(live_tokens, folder_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scale_multiplies_the_whole_stream_from_its_hop_on(families: Path, family: str) -> None:
    path = tuple(replace(hop, source="base") for hop in random_path(family, scaled=True))
    recipe = recipe_of(families / family, path)
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    without_epsilons(candidate.model)  # all that the two may differ by
    candidate.materialise(recipe)
    literal = scaled_stream(families / family / "base", path)
    outside = {k: v for k, v in candidate.model.state_dict().items() if not is_layer(k)}
    literal.load_state_dict(outside, strict=False)
    found, wanted = paths.answers(candidate.model)[0], paths.answers(literal)[0]
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def scaled_stream(folder: Path, path: tuple[Hop, ...]) -> PreTrainedModel:
    """The definition: copies of layers, each with its input multiplied."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    without_epsilons(model)
    holder, name = next(
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and name in ("layers", "h")
    )
    layers = [copy.deepcopy(getattr(holder, name)[hop.layer]) for hop in path]
    for position, (layer, hop) in enumerate(zip(layers, path, strict=True)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
        layer.register_forward_pre_hook(
            lambda _, args, scale=hop.scale: (args[0] * scale, *args[1:])
        )
    setattr(holder, name, nn.ModuleList(layers))
    model.config.num_hidden_layers = len(path)
    if types := getattr(model.config, "layer_types", None):
        model.config.layer_types = [types[hop.layer] for hop in path]
    return model.eval()


def without_epsilons(model: PreTrainedModel) -> None:
    for module in model.modules():
        for name in {"eps", "variance_epsilon"} & vars(module).keys():
            setattr(module, name, 1e-12)


def is_layer(name: str) -> bool:
    return ".layers." in name or ".h." in name


def test_the_next_recipe_finds_the_model_as_it_was(families: Path) -> None:
    for family in ("gemma3", "qwen3_moe", "gpt2"):
        plain = recipe_of(families / family, ())
        fresh, used = (LiveCandidate(Sources(plain.base, plain.experts)) for _ in range(2))
        model, config = used.model, used.model.config.to_dict()
        used.materialise(recipe_of(families / family, random_path(family, scaled=True)))
        assert used.model.config.to_dict() != config
        for candidate in (fresh, used):
            candidate.materialise(plain)
        assert used.model is model
        assert used.model.config.to_dict() == config
        for found, wanted in zip(*(paths.answers(c.model) for c in (used, fresh)), strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo2"])
def test_a_path_is_the_same_model_whatever_ran_before(families: Path, family: str) -> None:
    first, then = (random_path(family, scaled=scaled) for scaled in (True, False))
    again = tuple(replace(hop, scale=1.2) for hop in reversed(first))
    plain = recipe_of(families / family, ())
    used = LiveCandidate(Sources(plain.base, plain.experts))
    for path in (first, then, (), again, first[1:], then, first):
        fresh = LiveCandidate(Sources(plain.base, plain.experts))
        for candidate in (used, fresh):
            candidate.materialise(replace(plain, path=path))
        for found, wanted in zip(*(paths.answers(c.model) for c in (used, fresh)), strict=True):
            assert torch.equal(found, wanted)


def test_visits_are_made_once_and_moved(families: Path) -> None:
    plain = recipe_of(families / "llama", ())
    candidate = LiveCandidate(Sources(plain.base, plain.experts))
    one, merged = Hop("one", 1, 1.1), Hop("merged", 2)
    candidate.materialise(replace(plain, path=(one, one, merged)))
    before = list(candidate.model.model.layers)
    candidate.materialise(replace(plain, path=(merged, replace(one, scale=0.9), merged, one)))
    after = list(candidate.model.model.layers)
    assert [after.index(layer) for layer in before] == [1, 3, 0]
    assert [layer.self_attn.layer_idx for layer in after] == [0, 1, 2, 3]


def test_three_times_the_layers_take_no_more_memory(families: Path) -> None:
    plain = recipe_of(families / "llama", ())
    sources = Sources(plain.base, plain.experts)
    candidate = LiveCandidate(sources)
    candidate.materialise(plain)
    own = storages(candidate.model)
    path = tuple(Hop(s, n, 1.01) for _ in range(3) for s in ("one", "merged") for n in range(3))
    candidate.materialise(replace(plain, path=path))
    assert len(candidate.model.model.layers) == len(path)
    mapped = {
        expert.tensor(name).data_ptr()
        for expert in sources.experts.values()
        for name in sources.names
    }
    assert storages(candidate.model) <= own | mapped


@pytest.mark.parametrize("why", ["converted", "computed"])
def test_layers_that_no_longer_run_leave_memory(families: Path, why: str) -> None:
    plain = recipe_of(families / "llama", ())
    if why == "computed":
        one, two = (str(plain.experts[name]) for name in ("one", "two"))
        deltas = {"one": DeltaRef(one, minus=two), "two": DeltaRef(two, minus=one)}
        plain = replace(plain, experts=deltas)
    dtype: Dtype = "bfloat16" if why == "converted" else "float32"
    candidate = LiveCandidate(Sources(plain.base, plain.experts), dtype)
    candidate.materialise(replace(plain, path=(Hop("one", 0), Hop("two", 1), Hop("one", 1))))
    parameters = [next(layer.parameters()) for layer in candidate.model.model.layers]
    found = [weakref.ref(parameter) for parameter in parameters]
    del parameters
    candidate.materialise(replace(plain, path=(Hop("two", 1), Hop("two", 2))))
    gc.collect()
    assert [reference() is None for reference in found] == [True, False, True]


def test_a_path_is_written_alike_in_files_of_any_size(families: Path, tmp_path: Path) -> None:
    """In small batches, and resumed, and with one layer folded in several ways."""
    for family in ("gemma2", "olmo2", "qwen3_moe"):
        path = (Hop("merged", 0), Hop("merged", 0, 1.5), Hop("one", 0), Hop("base", 2, 0.7))
        recipe = recipe_of(families / family, path)
        write_checkpoint(recipe, tmp_path / family / "whole")
        cut = tmp_path / family / "cut"
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(recipe, cut, shard_bytes=4000, progress=stop_half_way)
        assert list(cut.glob("*.safetensors"))
        write_checkpoint(recipe, cut, shard_bytes=4000)
        whole, found = (tensors_in(folder) for folder in (tmp_path / family / "whole", cut))
        assert whole.keys() == found.keys()
        for name, tensor in whole.items():
            assert torch.equal(found[name], tensor), name


def stop_half_way(done: int, total: int) -> None:
    if done > total // 2:
        raise KeyboardInterrupt


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    files = folder.glob("*.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


# Where some layers are dense by their position, none of them can move.
NO_DENSE_LAYER = {
    "glm4_moe": {"first_k_dense_replace": 0},
    "ernie4_5_moe": {"moe_layer_start_index": 0, "moe_layer_end_index": 99},
}


@pytest.mark.parametrize("family", MIXED_DTYPES)
def test_parameters_that_stay_in_float32_do_so_along_a_path(family: str, tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model(family, tmp_path / name, seed, **NO_DENSE_LAYER.get(family, {}))
    path = (Hop("merged", 1), Hop("one", 2), Hop("base", 1), Hop("merged", 2))
    recipe = recipe_of(tmp_path, path)
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    candidate.materialise(recipe)
    write_checkpoint(recipe, tmp_path / "out")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in candidate.model.state_dict().items():
        assert written[name].dtype == tensor.dtype, name
        assert torch.equal(written[name], tensor), name


def test_a_tied_tensor_is_written_once(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model("llama_tied", tmp_path / name, seed)
    stored = load_file(tmp_path / "base" / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    found, wanted = live_and_written(recipe_of(tmp_path, (Hop("one", 1),)), tmp_path / "out")
    assert torch.equal(found, wanted)
    assert "lm_head.weight" not in tensors_in(tmp_path / "out")


def storages(model: PreTrainedModel) -> set[int]:
    return {p.data_ptr() for layer in (model, *model.model.layers) for p in layer.parameters()}


def test_layers_that_a_path_leaves_out_are_not_merged(families: Path) -> None:
    recipe = recipe_of(families / "llama", (Hop("merged", 2), Hop("one", 0)))
    found = [name for name, _ in lower(recipe, Sources(recipe.base, recipe.experts))]
    assert {name.split(".")[2] for name in found if is_layer(name)} == {"2"}
    assert "model.norm.weight" in found


def test_layers_of_two_kinds_move_with_their_kinds(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model("qwen3_moe", tmp_path / name, seed, torch.float32, mlp_only_layers=[1])
    path = tuple(Hop(s, n) for s, n in (("one", 1), ("base", 0), ("merged", 1), ("one", 2)))
    found, wanted = live_and_written(recipe_of(tmp_path, path), tmp_path / "out")
    assert torch.equal(found, wanted)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["mlp_only_layers"] == [0, 2]


def test_families_nobody_has_looked_at_run_paths_without_scales(tmp_path: Path) -> None:
    recipe = unknown_family(tmp_path)
    found, wanted = live_and_written(recipe, tmp_path / "out")
    assert torch.equal(found, wanted)


def test_paths_that_no_checkpoint_can_hold_are_refused(families: Path, tmp_path: Path) -> None:
    scaled = unknown_family(tmp_path / "stablelm")
    scaled = replace(scaled, path=(Hop("one", 0), Hop("one", 1, 1.5)))
    refused(scaled, "layers of type stablelm write .* is not known; set every scale to 1")
    far = recipe_of(families / "llama", (Hop("one", 0), Hop("one", 3)))
    refused(far, r"path\[1\].layer: expected one of 3 layers, got 3")
    for name, theta in (("base", 1e4), ("one", 1e6), ("two", 1e4)):
        rope = {"rope_type": "default", "rope_theta": theta}
        tiny_model("llama", tmp_path / name, 0, rope_parameters=rope)
    of_one = recipe_of(tmp_path, (Hop("one", 0),))
    refused(of_one, "expert .one., whose rope_parameters is .*1000000.0")
    for name in ("base", "one", "two"):
        folder = tmp_path / "gpt2" / name
        tiny_model("gpt2", folder, 0, scale_attn_by_inverse_layer_idx=True)
    refused(recipe_of(tmp_path / "gpt2", (Hop("one", 0),)), "attn.scaling .* at its own position")


def unknown_family(folder: Path) -> Recipe:
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model("stablelm", folder / name, seed, torch.float32)
    return recipe_of(folder, (Hop("one", 0), Hop("merged", 0), Hop("base", 2), Hop("two", 1)))


def live_and_written(recipe: Recipe, out: Path) -> tuple[torch.Tensor, torch.Tensor]:
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    candidate.materialise(recipe)
    write_checkpoint(recipe, out)
    written = AutoModelForCausalLM.from_pretrained(out)
    return paths.answers(candidate.model)[0], paths.answers(written.eval())[0]


def refused(recipe: Recipe, reason: str) -> None:
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    with pytest.raises(RecipeError, match=reason):
        candidate.materialise(recipe)
    with pytest.raises(RecipeError, match=reason):
        write_checkpoint(recipe, Path("never written"))
