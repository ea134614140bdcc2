"""The comparison of methods: every method gets the same draws, and is paired by seed."""

from __future__ import annotations

from evomerge.config.presets import Presets
from evomerge.runs.parts import build_space
from evomerge.schema import read_yaml
from evomerge.space.protocol import ModelSet
from tests.benchmarks.methods import draws, table
from tests.benchmarks.results import Row


def test_methods_differ_in_nothing_but_the_method() -> None:
    models = ModelSet("zoo:base", {"a": "zoo:math", "b": "zoo:list"}, n_layers=6)
    space = build_space(read_yaml(Presets().names("search_spaces")["every_method"]), models)
    ties, pcb = (list(draws(space, name, 3, seed=1)) for name in ("ties", "pcb"))
    assert [{**params, "method": "pcb"} for params in ties] == pcb
    assert ties != list(draws(space, "ties", 3, seed=2))
    assert {space.recipe(params).rules[0].method for params in ties} == {"ties"}


def test_gains_are_paired_with_task_arithmetic_by_seed() -> None:
    shared = {"search": 0.5, "seconds": 1.0, "setting": "here", "load": 1.0}
    scores = {("task_arithmetic", 1): 0.5, ("task_arithmetic", 2): 0.7, ("ties", 2): 0.8}
    rows: list[Row] = [
        {**shared, "method": f"{name} {seed}", "name": name, "seed": seed, "test": test}
        for (name, seed), test in scores.items()
    ]
    lines = table(rows).splitlines()
    assert lines[2] == "| `ties` | 1 | 0.500 | 0.800 | – | +0.100, better in 1 | 1 |"
    assert "| 0.600 | 0.141 | +0.000, better in 0 |" in lines[3]
