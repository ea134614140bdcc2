from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from optuna.samplers import RandomSampler

from evomerge.errors import ConfigError
from evomerge.samplers import (
    InSpace,
    SamplerKind,
    SearchProblem,
    build_sampler,
    registry,
    sampler_names,
)
from evomerge.samplers.joint import JointSampler
from tests.samplers.searches import floats

PLUGIN = SamplerKind("when testing", lambda options, budget: RandomSampler(seed=budget.seed))


def build(name, **options):
    return build_sampler(
        name, options, SearchProblem(space=floats(3), n_objectives=1, n_trials=1000, seed=0)
    )


def test_names_say_when_to_use_each():
    names = sampler_names()
    assert next(iter(names)) == "auto"
    assert {"random", "tpe", "gp", "nsga2", "nsga3", "pycma"} < names.keys()
    assert {"catcma", "comocma", "map", "m2n2", "greedy_soup"} < names.keys()
    assert all(names.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tpa", {}, r"no sampler 'tpa', known are auto, random.*; did you mean 'tpe'\?"),
        ("auto", {"popsize": 3}, "popsize: auto has no options"),
        ("random", {"seed": 3}, "seed: unknown key"),
        ("pycma", {"popsiz": 8}, "popsiz: unknown key; did you mean 'popsize'"),
        ("pycma", {"popsize": 2}, "popsize: .*greater than or equal to 4.*got 2"),
        ("pycma", {"sigma0": 0.0}, "sigma0: .*greater than 0.*got 0.0"),
        ("nsga2", {"crossover_prob": 1.5}, "crossover_prob: .*less than or equal to 1"),
        ("comocma", {}, "comocma is for 2 objectives, got 1"),
        ("comocma", {"kernels": 0}, "kernels: .*greater than or equal to 1"),
        ("map", {"n_startup_trials": 1}, "n_startup_trials: .*greater than or equal to 2"),
        ("m2n2", {"alpha": -1.0}, "alpha: .*greater than or equal to 0"),
        ("greedy_soup", {"step": 2.0}, "step: .*less than or equal to 1"),
        ("qmc", {"sequence": "sobol"}, "no 'qmc' any more: .*; take 'random', or 'auto'"),
    ],
)
def test_wrong_names_and_options_are_config_errors(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **options)


def test_auto_builds_what_it_chooses():
    many = build_sampler(
        "auto", {}, SearchProblem(space=floats(30), n_objectives=1, n_trials=100, seed=0)
    )
    assert isinstance(many, JointSampler)
    assert isinstance(build("auto"), InSpace)


def test_entry_points_add_samplers(monkeypatch):
    entry = EntryPoint("mine", "tests.samplers.test_registry:PLUGIN", "evomerge.samplers")
    monkeypatch.setattr(
        registry, "entry_points", lambda group, name="mine": [entry] if name == "mine" else []
    )
    assert sampler_names()["mine"] == "when testing"
    assert isinstance(build("mine"), RandomSampler)
    assert isinstance(build("random"), InSpace)
