"""Choosing the engine of an experiment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evomerge.config.experiment import Experiment
from evomerge.config.load import experiment_digest, load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.runs import checks
from evomerge.runs.cost import experiment_facts
from evomerge.runs.loaded import Loaded

EXPERIMENT = """
models: {base: zoo:base, experts: {math: zoo:math, list: zoo:list}}
search_space: global_linear
evaluators: [zoo]
objectives: [{task: zoo_math, metric: exact_match}]
"""


def load(tmp_path: Path, *overrides: str) -> Experiment:
    path = tmp_path / "e.yaml"
    path.write_text(EXPERIMENT)
    return load_experiment(path, Presets(None), overrides)


def test_all_that_stands_in_the_way_of_vllm_is_reported_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    experiment = load(tmp_path, "engine=vllm", "search_space=dataflow_slots")
    with pytest.raises(ConfigError) as error:
        Loaded.of(experiment)
    assert str(error.value).splitlines() == [
        "engine: vllm is not installed; pip install vllm",
        "engine: expected transformers for workers without a GPU, got vllm",
        "engine: expected transformers for a space with data-flow paths, which vLLM "
        "cannot run, got vllm",
    ]


def test_vllm_has_half_of_the_memory_and_check_says_that_it_is_untried(tmp_path, monkeypatch):
    plain = Loaded.of(load(tmp_path))
    experiment = plain.experiment.model_copy(update={"engine": "vllm"})
    with_vllm = replace(plain, experiment=experiment)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10_000_000, 10_000_000))
    expected, found = (dict(experiment_facts(one)) for one in (plain, with_vllm))
    assert "engine" not in expected
    assert "not run on a GPU by its authors" in found["engine"]
    assert expected["experts"].startswith("resident")
    assert found["experts"].startswith("streamed")


def test_a_study_keeps_its_engine(tmp_path):
    experiments = [load(tmp_path, f"engine={name}") for name in ("vllm", "transformers")]
    assert len(set(map(experiment_digest, experiments))) == 2
