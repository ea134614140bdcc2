"""Candidates run quantized: what their layers compute, and what stays as it was merged."""

from __future__ import annotations

import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, RecipeError
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.execution.protocol import Job, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.export.model import export_model
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.quantized import QUANTIZATIONS, quantize_fault
from evomerge.merging.sources import Sources
from evomerge.models.zoo import zoo_path
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs import checks
from evomerge.runs.cost import experiment_facts
from evomerge.runs.loaded import Loaded
from evomerge.runs.parts import load_suites
from evomerge.study.records import Objective, StudyRecord
from tests.architectures import tiny_model
from tests.export.test_export import trial

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
TOKENS = torch.arange(24).reshape(2, 12)
EXPERIMENT = """
models: {base: zoo:base, experts: {math: zoo:math, list: zoo:list}}
search_space: global_linear
evaluators: [zoo]
objectives: [{task: zoo_math, metric: gold_bpb}]
engine: {quantize: int8}
"""
needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="no torchao")


def recipe(coefficient: float) -> Recipe:
    return Recipe(EXPERTS, (Rule("task_arithmetic", {"coefficient": coefficient}),), "zoo:base")


def candidate(name: str | None, coefficient: float = 0.5) -> LiveCandidate:
    made = LiveCandidate(Sources("zoo:base", EXPERTS), "float32", quantize=name)
    made.materialise(recipe(coefficient))
    return made


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    layers = model.get_submodule("model.layers").named_modules(prefix="model.layers")
    return {name: module for name, module in layers if isinstance(module, nn.Linear)}


@torch.no_grad()
def computed(layer: nn.Linear) -> torch.Tensor:
    """The weight (out, in) that a layer without a bias computes with."""
    return torch.cat([layer(row[None]) for row in torch.eye(layer.in_features)]).T


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


def allowed_error(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Half a step of so many levels between plus and minus the largest of a row, or group."""
    levels, group = {"int8": (256, weight.shape[1]), "int4": (16, 32)}[name]
    largest = weight.reshape(len(weight), -1, group).abs().amax(-1, keepdim=True)
    return (largest / (levels - 1)).expand(-1, -1, group).reshape(weight.shape)


@needs_torchao
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_weights_are_rounded_to_the_nearest_of_their_levels(name: str) -> None:
    for layer in linear_layers(candidate(name).model).values():
        error = (computed(layer) - layer.weight).abs()
        assert (error <= 1.001 * allowed_error(name, layer.weight)).all()
        assert error.max() > 0


@needs_torchao
@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_a_candidate_is_the_merge_with_those_weights(name: str) -> None:
    live, plain = candidate(name), candidate(None)
    before = logits(live.model)
    live.materialise(recipe(0.2))
    plain.materialise(recipe(0.2))
    for own, expected in zip(live.tensors.values(), plain.tensors.values(), strict=True):
        assert torch.equal(own, expected)  # what is exported
    quantized, whole = logits(live.model), logits(plain.model)
    assert not torch.equal(quantized, before)
    assert not torch.equal(quantized, whole)
    if name == "int8_dynamic":  # inputs are rounded, too
        assert torch.nn.functional.cosine_similarity(quantized, whole, -1).min() > 0.95
        return
    twin = AutoModelForCausalLM.from_pretrained(zoo_path("base"), dtype=torch.float32)
    twin.load_state_dict(plain.model.state_dict())
    weights = {n: computed(layer) for n, layer in linear_layers(live.model).items()}
    for module, layer in linear_layers(twin).items():
        layer.weight.data.copy_(weights[module])
    torch.testing.assert_close(quantized, logits(twin), rtol=1e-3, atol=1e-3)


@needs_torchao
def test_slopes_are_those_of_the_merge_itself() -> None:
    found = []
    for name in (None, "int4"):
        live = candidate(name)
        with live.slopes() as slopes:
            live.model(input_ids=TOKENS).logits.float().log_softmax(-1)[..., 1].mean().backward()
        found.append(slopes.along_recipe())
    assert found[0] == found[1]


@needs_torchao
def test_a_path_is_refused() -> None:
    live = candidate("int8")
    path = dataclasses.replace(recipe(0.5), path=(Hop("merged", 0), Hop("math", 1)))
    with pytest.raises(RecipeError, match="a data-flow path, whose layers are not quantized"):
        live.materialise(path)


def test_what_is_not_made_of_linear_layers_is_refused(tmp_path: Path) -> None:
    mixture = tiny_model("mixtral", tmp_path, seed=0, dtype=torch.float32)
    assert re.search(
        r"expected linear layers to quantize, got model\.layers\.0\.mlp\.\S+ of MixtralForCausalLM",
        str(quantize_fault(mixture, "int8")),
    )
    narrow = tiny_model("llama", tmp_path, seed=0, dtype=torch.float32)
    if narrow.config.hidden_size % 32:
        assert "that divide into groups of 32 for int4" in str(quantize_fault(narrow, "int4"))


@needs_torchao
def test_a_trial_is_scored_quantized_and_its_export_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))  # of scores, among others
    (zoo,) = load_suites(["zoo"], Presets(), Path.cwd())
    suite = dataclasses.replace(zoo, tasks=("zoo_math",), smooth=frozenset({"zoo_math"}), limit=8)
    spec, int4 = WorkerSpec("zoo:base", EXPERTS, (suite,)), EngineChoice(quantize="int4")
    job = Job(0, recipe(0.5))
    found = []
    for engine in (EngineChoice(), int4):
        worker = Worker(dataclasses.replace(spec, engine=engine))
        outcome = worker.run(job)
        assert isinstance(outcome, Scored)
        found.append(outcome.scores.metrics["zoo_math"]["gold_bpb"].value)
    assert found[0] != found[1]
    before = worker._digest(job)
    monkeypatch.setattr("evomerge.execution.worker.version", lambda _: "another")
    assert worker._digest(job) != before  # another torchao may round otherwise

    own = trial(recipe(0.5), value=found[1])
    objective = Objective("zoo_math", "gold_bpb", "minimize", "zoo_math")
    study = StudyRecord("s", (objective,), (own,), (), 1)
    rescored = export_model(study, own, tmp_path / "out", [suite], engine=int4)
    assert rescored.equal
    card = (tmp_path / "out" / "README.md").read_text()
    assert "scored quantized (weights in 4 bits, a scale and a zero per 32 of a row)" in card
    assert f"| this merge, not quantized | search | {found[0]:.3f}" in card


def load(tmp_path: Path, *overrides: str) -> Loaded:
    file = tmp_path / "e.yaml"
    file.write_text(EXPERIMENT)
    return Loaded.of(load_experiment(file, Presets(None), overrides))


def test_what_stands_in_the_way_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        load(tmp_path, "search_space=dataflow_slots")
    assert str(error.value).splitlines() == [
        "engine.quantize: torchao is not installed; pip install 'evomerge[quantize]'",
        "engine.quantize: expected nothing for a space with data-flow paths, whose layers are not "
        "quantized, got int8; leave it out",
    ]
    with pytest.raises(ConfigError, match="out of int8, int8_dynamic, int4, got 'int7'; did"):
        load(tmp_path, "engine.quantize=int7")
    with pytest.raises(ConfigError, match=r"out of int8, int8_dynamic, int4, got .*'int8'"):
        load(tmp_path, "engine.quantize=[int8]")
    with pytest.raises(ConfigError, match=r"by the key engine.quantize, for transformers only"):
        load(tmp_path, "engine={name: vllm, quantize: int8}")


def test_check_says_what_candidates_are_scored_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: True)
    assert dict(experiment_facts(load(tmp_path)))["engine"] == (
        "transformers with quantize: int8: candidates are scored with weights in 8 bits, a scale "
        "per row; climbs and exports are not quantized"
    )
