"""Candidates over several devices: the same merges, scores and slopes, each tensor in its place."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, DynamicCache

from evomerge.config.presets import Presets
from evomerge.errors import RecipeError
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.step_memory import cache_bytes
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.feeding import make_supply
from evomerge.merging.lowering import PlannedTensor, lower
from evomerge.merging.residency import Residency, needed_on
from evomerge.merging.sources import Sources
from evomerge.merging.spread import device_numbers, devices_of
from evomerge.models.outline import model_outline
from evomerge.models.zoo import zoo_path
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import load_suites
from tests.merging.fake_devices import FakeDevices, device_of

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
RECIPE = Recipe(EXPERTS, (Rule("ties", {"density": 0.4}),), "zoo:base")
TOKENS = torch.arange(24).reshape(2, 12)
N = 3


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources("zoo:base", EXPERTS)


@pytest.fixture(scope="module")
def plain(sources: Sources) -> LiveCandidate:
    candidate = LiveCandidate(sources, "float32")
    candidate.materialise(RECIPE)
    return candidate


@pytest.fixture(scope="module")
def spread_out(sources: Sources) -> LiveCandidate:
    with FakeDevices(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("evomerge.merging.candidate.residency_of", lambda *_: "resident")
        candidate = LiveCandidate(sources, "float32", n_devices=N)
        candidate.materialise(RECIPE)
    return candidate


def test_layers_are_shared_out_evenly_and_in_order() -> None:
    assert device_numbers([1] * 8, 0, 4) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert device_numbers([1] * 6, 2, 2) == [0, 0, 1, 1, 1, 1]
    assert device_numbers([1, 1], 6, 2) == [1, 1]  # embedding and head fill the first
    assert device_numbers([1] * 4, 9, 3) == [1, 1, 2, 2]


def test_every_tensor_of_the_merge_is_there_and_written_where_it_is(
    plain: LiveCandidate, spread_out: LiveCandidate, sources: Sources
) -> None:
    places = {name: device_of(tensor) for name, tensor in spread_out.tensors.items()}
    assert set(places.values()) == set(devices_of("cpu", N))
    for name, tensor in spread_out.tensors.items():
        assert torch.equal(tensor, plain.tensors[name]), name
        role = sources.architecture.roles[name]
        if not role.in_layer:
            assert places[name] == torch.device("cpu", 0)
    roles = sources.architecture.roles
    pairs = {(roles[n].layer, place) for n, place in places.items() if roles[n].in_layer}
    assert len(pairs) == sources.architecture.n_layers  # none is on two


def test_memory_is_planned_as_it_is_taken(spread_out: LiveCandidate, sources: Sources) -> None:
    taken: Counter[torch.device] = Counter()
    for parameter in spread_out.model.parameters():
        taken[device_of(parameter)] += parameter.nbytes
    planned = needed_on(sources, torch.float32, N)
    assert [needs.live_bytes for needs in planned] == [
        taken[device] for device in devices_of("cpu", N)
    ]
    total = sum(needs.source_bytes for needs in planned)
    assert total == sum(map(sources.tensor_bytes, sources.names))


def test_keys_and_values_are_planned_as_they_are_taken(
    spread_out: LiveCandidate, sources: Sources
) -> None:
    cache = DynamicCache()
    with FakeDevices(), torch.no_grad():
        ids = TOKENS.to(spread_out.model.device)
        logits = spread_out.model(input_ids=ids, past_key_values=cache, use_cache=True).logits
        assert logits.device == spread_out.model.device == torch.device("cpu", 0)
    taken: Counter[torch.device] = Counter()
    for layer in cache.layers:
        assert device_of(layer.keys) == device_of(layer.values)
        taken[device_of(layer.keys)] += layer.keys.nbytes + layer.values.nbytes
    outline = model_outline(sources.anchor.config, torch.float32)
    needed = needed_on(sources, torch.float32, N)
    assert outline is not None
    assert [needs.n_layers * cache_bytes(outline, TOKENS.numel()) for needs in needed] == [
        taken[device] for device in devices_of("cpu", N)
    ]


def test_scores_are_those_on_one_device(plain: LiveCandidate, spread_out: LiveCandidate) -> None:
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("base"))
    (zoo,) = load_suites(["zoo"], Presets(), Path.cwd())
    suite = dataclasses.replace(zoo, limit=6, smooth=frozenset({"zoo_math"}))
    found = PreparedSuites.of([suite], "search", plain.model, tokenizer).score()
    with FakeDevices():
        again = PreparedSuites.of([suite], "search", spread_out.model, tokenizer).score()
    assert [(i.item, i.metric, i.score) for i in again.items] == [
        (i.item, i.metric, i.score) for i in found.items
    ]


def test_what_would_be_mixed_up_is_noticed(spread_out: LiveCandidate) -> None:
    layers = spread_out.model.get_submodule("model.layers")
    hooks = layers[-1]._forward_pre_hooks
    kept = dict(hooks)
    hooks.clear()
    with FakeDevices(), pytest.raises(RuntimeError, match="expected all tensors on one device"):
        spread_out.model(input_ids=TOKENS.to(torch.device("cpu", 0)))
    hooks.update(kept)


def test_slopes_are_those_on_one_device(plain: LiveCandidate, spread_out: LiveCandidate) -> None:
    found = []
    for candidate in (plain, spread_out):
        with FakeDevices(), candidate.slopes() as slopes:
            ids = TOKENS.to(candidate.model.device)
            candidate.model(input_ids=ids).logits.log_softmax(-1)[..., 1].mean().backward()
        found.append(slopes.along_recipe())
    assert found[0] == found[1]


def test_experts_come_to_the_device_of_what_is_merged(
    spread_out: LiveCandidate, sources: Sources
) -> None:
    places = {name: device_of(tensor) for name, tensor in spread_out.tensors.items()}
    with FakeDevices():
        supply = make_supply(sources, devices_of("cpu", N), "resident", places)
        for name, place in places.items():
            base, experts = supply.tensors(name)
            assert {device_of(one) for one in (base, *experts)} == {place}


class Instant:
    """An accelerator's streams and events, where all that is queued has run at once."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *_: nullcontext() if name == "stream" else self


@pytest.mark.parametrize("residency", ["resident", "streamed"])
def test_merges_are_the_same_however_experts_come(
    plain: LiveCandidate,
    spread_out: LiveCandidate,
    sources: Sources,
    monkeypatch: pytest.MonkeyPatch,
    residency: Residency,
) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda _: Instant())
    places = {name: device_of(tensor) for name, tensor in spread_out.tensors.items()}
    with FakeDevices():
        supply = make_supply(sources, devices_of("cpu", N), residency, places)
        outs = {name: torch.zeros_like(tensor) for name, tensor in spread_out.tensors.items()}
        plans = [(name, plan) for name, plan in lower(RECIPE, sources) if name in outs]
        supply.feed(PlannedTensor(name, plan, outs[name]) for name, plan in plans)
    for name, out in outs.items():
        assert device_of(out) == places[name]
        assert torch.equal(out, plain.tensors[name]), name


def test_a_path_is_refused(spread_out: LiveCandidate) -> None:
    path = dataclasses.replace(RECIPE, path=(Hop("merged", 0), Hop("merged", 1)))
    with FakeDevices(), pytest.raises(RecipeError, match="whose layers are not spread over dev"):
        spread_out.materialise(path)
