"""Every YAML that ships must load, resolve and fit its models."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from evomerge.config.load import load_experiment
from evomerge.config.presets import PRESET_KINDS, Presets
from evomerge.evaluation.harness import load_config
from evomerge.runs.loaded import Loaded
from evomerge.runs.parts import build_space, make_suites
from evomerge.samplers import GeneSpace, SearchProblem, build_sampler
from evomerge.schema import read_yaml
from evomerge.space.protocol import ModelSet

PRESETS = Presets()
ROOT = Path(__file__).parents[2]
TASKS = Path(next(iter(find_spec("lm_eval").submodule_search_locations))) / "tasks"  # type: ignore


def test_every_file_under_the_preset_folders_is_found() -> None:
    for kind in PRESET_KINDS:
        on_disk = {f.stem for f in (ROOT / kind).glob("*.yaml")}
        assert set(PRESETS.names(kind)) == on_disk


@pytest.mark.parametrize("name", PRESETS.names("search_spaces"))
def test_search_space_presets_decode(name: str) -> None:
    models = ModelSet("zoo:base", {"a": "zoo:math", "b": "zoo:list"}, n_layers=6)
    space = build_space(read_yaml(PRESETS.names("search_spaces")[name]), models)
    assert space.recipe(space.defaults).faults() == []
    assert len(space.describe()) == len(space.distributions) > 0


HUB = {"evollm_jp", "evollm_jp_merge"}  # need downloads
BENCHMARKS = {  # need downloads, too: test_benchmark_presets.py
    *("llama3_japanese_math", "mergebench_gemma2b", "mergebench_llama3b"),
    *("qwen3_thinking", "qwen_math_code", "qwen_vl_text"),
}
BUILT = {
    "smollm2",
    "smollm2_flow",
    "smollm2_french_math",
}  # on models of their own: tests/models/test_smollm2.py


@pytest.mark.parametrize(
    "name", sorted(PRESETS.names("experiments").keys() - HUB - BENCHMARKS - BUILT)
)
def test_experiment_presets_fit_together(name: str) -> None:
    path = PRESETS.names("experiments")[name]
    loaded = Loaded.of(load_experiment(path, PRESETS))
    assert loaded.objectives


@pytest.mark.parametrize("name", sorted(HUB))
def test_experiments_on_hub_models_fit_as_far_as_can_be_seen_offline(name: str) -> None:
    experiment = load_experiment(PRESETS.names("experiments")[name], PRESETS)
    config = experiment.models
    models = ModelSet(config.base, config.experts, n_layers=32)
    assert isinstance(experiment.search_space, dict)
    space = build_space(experiment.search_space, models)
    assert space.recipe(space.defaults).faults() == []
    sampler = experiment.sampler
    genes = GeneSpace(space.distributions, space.defaults, space.depths)
    build_sampler(
        sampler.name,
        sampler.options,
        SearchProblem(
            space=genes,
            n_objectives=len(experiment.objectives),
            n_trials=experiment.budget.trials,
            seed=experiment.seed,
        ),
    )
    for suite in make_suites(experiment):
        assert suite.faults() == []
    for objective in experiment.objectives:
        task = load_config(next(TASKS.rglob(f"{objective.task}.yaml")))
        metric, _, filter_ = objective.metric.partition(",")
        assert task["test_split"]
        assert metric in [entry["metric"] for entry in task["metric_list"]]  # type: ignore[attr-defined]
        assert filter_ in [entry["name"] for entry in task["filter_list"]]  # type: ignore[attr-defined]


def test_the_papers_paths_have_an_indicator_for_each_of_3_rounds_of_64_layers() -> None:
    models = ModelSet("b", {"a": "m", "b": "n"}, n_layers=32)
    space = build_space(read_yaml(PRESETS.names("search_spaces")["dataflow_paper"]), models)
    assert sum(name.startswith("include") for name in space.distributions) == 192
