"""The inventory names what there is, and every method merges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import evomerge
from evomerge.methods.registry import method, method_names
from tests.inventory.page import PAGE, System, page_text, systems
from tests.inventory.places import is_place, is_test
from tests.tiny import save_tiny_llama

by_system = pytest.mark.parametrize("system", systems(), ids=lambda system: system.name)


def test_the_page_is_of_this_table_and_this_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_text(), "make inventory"


def test_every_system_is_there_once() -> None:
    names = [system.name for system in systems()]
    assert len(names) == len(set(names)) == 81


@by_system
def test_a_system_lives_where_the_table_says_and_is_tested_there(system: System) -> None:
    assert [place for place in system.at if not is_place(place)] == []
    assert [test for test in system.tests if not is_test(test)] == []
    assert system.published
    assert bool(system.tests) == bool(system.at)
    assert bool(system.out) != bool(system.at), "it is here or out of scope"
    assert not (system.part and not system.at)


def test_what_is_not_there_is_found() -> None:
    assert is_place("method ties")
    assert is_place("page averaging.md#while-training")
    assert not is_place("method tise")
    assert not is_place("command averge")
    assert not is_place("module evomerge.nowhere.at_all")
    assert not is_place("page averaging.md#nothing")
    assert not is_test("tests/inventory/test_inventory.py::test_nothing")
    with pytest.raises(KeyError):
        is_place("methods ties")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("family")
    base = save_tiny_llama(root / "base", seed=0, dtype=torch.float32, n_layers=1)
    for seed, name in enumerate(("one", "two"), 1):
        save_tiny_llama(root / name, seed=seed, near=base, dtype=torch.float32, n_layers=1)
    lines = [{"prompt": f"w{i} w{i + 1}", "answer": f" w{i + 2}"} for i in range(6)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.mark.parametrize("name", method_names())
def test_a_recipe_of_every_method_merges_models(name: str, family: Path) -> None:
    kind = method(name)
    wanted = ("one", "two")[: kind.n_experts[1]]
    recipe = {
        "base": str(family / "base"),
        "experts": {expert: str(family / expert) for expert in wanted},
        "rules": [{"method": name}],
        **({"prompts": {"file": str(family / "prompts.jsonl")}} if kind.observations else {}),
    }
    model = evomerge.merge(recipe)
    base = evomerge.merge({**recipe, "rules": [{"method": "task_arithmetic", "parameters": NONE}]})
    moved = [
        float((own - other).detach().abs().sum())
        for own, other in zip(model.parameters(), base.parameters(), strict=True)
    ]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(moved) > 0
    assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()


NONE = {"coefficient": 0.0}
