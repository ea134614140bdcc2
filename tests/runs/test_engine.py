"""Choosing the engine of an experiment, and what it is told."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from evomerge.config.experiment import Experiment
from evomerge.config.load import experiment_digest, load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.execution.protocol import WorkerSpec
from evomerge.execution.worker import Worker
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
    experiment = plain.experiment.model_copy(update={"engine": EngineChoice(name="vllm")})
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


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("{name: transformers}", True),
        ("{name: transformers, max_length: 99}", False),
        ("{attn_implementation: eager}", False),
    ],
)
def test_an_engine_that_is_told_something_makes_another_study(tmp_path, written, same):
    experiments = [load(tmp_path), load(tmp_path, f"engine={written}")]
    assert (len(set(map(experiment_digest, experiments))) == 1) is same


def test_how_much_memory_vllm_takes_makes_no_other_study(tmp_path):
    plain, roomy, eager = (
        load(tmp_path, f"engine={written}")
        for written in (
            "vllm",
            "{name: vllm, gpu_memory_utilization: 0.4, swap_space: 2}",
            "{name: vllm, gpu_memory_utilization: 0.4, enforce_eager: true}",
        )
    )
    assert experiment_digest(roomy) == experiment_digest(plain) != experiment_digest(eager)
    assert load(tmp_path, f"engine={roomy.model_dump(mode='json')['engine']}") == roomy
    assert plain.model_dump(mode="json")["engine"] == "vllm"


def test_an_engine_that_is_not_here_is_refused_with_what_to_do_instead(tmp_path):
    with pytest.raises(ConfigError, match=r"engine: name: .*got sglang: .* lm_eval --model sglang"):
        load(tmp_path, "engine=sglang")


def test_what_no_engine_may_be_told_is_refused_at_once(tmp_path, monkeypatch):
    told = (
        "{attn_implementation: paged, max_length: many, add_bos_token: 1, prefix_token_id: -1, "
        "dtype: float16, batch_size: 4, max_lenght: 9}"
    )
    with pytest.raises(ConfigError) as error:
        Loaded.of(load(tmp_path, f"engine={told}"))
    assert str(error.value).splitlines() == [
        "engine.dtype: expected no such argument: evomerge sets it itself, by the key models.dtype",
        "engine.batch_size: expected no such argument: evomerge sets it itself, by the key "
        "evaluators",
        "engine.max_lenght: expected one of attn_implementation, quantize, max_length, "
        "add_bos_token, prefix_token_id, image_string, interleave, convert_img_format, "
        "image_max_side, min_pixels, max_pixels, got 'max_lenght'; did you mean 'max_length'?",
        "engine.attn_implementation: expected one of eager, sdpa, flash_attention_2, "
        "flash_attention_3, flex_attention, got 'paged'",
        "engine.max_length: expected a whole number of tokens above 1, got 'many'",
        "engine.add_bos_token: expected true or false, got 1",
        "engine.prefix_token_id: expected the number of a token, got -1",
    ]


def test_a_context_that_is_too_short_for_the_prompts_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the context of the model is 9"):
        Loaded.of(load(tmp_path, "engine={max_length: 9}"))


def test_what_transformers_and_lm_eval_are_told_arrives(tmp_path):
    told = "{attn_implementation: eager, max_length: 30, add_bos_token: true, prefix_token_id: 1}"
    worker = Worker(Loaded.of(load(tmp_path, f"engine={told}")).worker)
    assert worker._candidate.model.config._attn_implementation == "eager"
    lm = worker._prepared["search"]._runs[0].engine.language_model.lm
    assert (lm.max_length, lm.add_bos_token, lm.prefix_token_id) == (30, True, 1)


class ArrivedError(Exception):
    """What vLLM was told."""


def stand_in() -> Any:
    """A vLLM that takes the arguments of the real one, and says which it got."""
    module: Any = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)

    @dataclass
    class EngineArgs:
        gpu_memory_utilization: float = 0.9
        tensor_parallel_size: int = 1
        max_num_seqs: int = 256

    class LLM:
        def __init__(self, model: str, *, enforce_eager: bool = False, **others: object) -> None:
            raise ArrivedError({"model": model, "enforce_eager": enforce_eager, **others})

    module.__version__, module.EngineArgs, module.LLM = "0", EngineArgs, LLM
    return module


def test_what_vllm_is_told_arrives_beside_what_evomerge_says(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", stand_in())
    told = "{name: vllm, gpu_memory_utilization: 0.3, max_num_seqs: 7, enforce_eager: false}"
    plain = Loaded.of(load(tmp_path)).worker
    spec: WorkerSpec = replace(plain, engine=load(tmp_path, f"engine={told}").engine)
    assert spec.merging_share == pytest.approx(0.7)
    with pytest.raises(ArrivedError) as arrived:
        Worker(spec)
    (said,) = arrived.value.args
    expected = {"gpu_memory_utilization": 0.3, "max_num_seqs": 7, "enforce_eager": False}
    assert {key: said[key] for key in expected} == expected
    assert (said["dtype"], said["load_format"], said["seed"]) == ("bfloat16", "dummy", 0)


def test_what_vllm_does_not_take_is_refused_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", stand_in())
    monkeypatch.setattr(checks, "find_spec", lambda name: True)
    told = (
        "{name: vllm, model: x, gpu_memory_utilization: 40, tensor_parallel_size: 2, "
        "max_num_seq: 7, enforce_eager: true}"
    )
    with pytest.raises(ConfigError) as error:
        Loaded.of(load(tmp_path, f"engine={told}"))
    assert str(error.value).splitlines()[:-1] == [
        "engine.model: expected no such argument: evomerge sets it itself, by the key models",
        "engine.gpu_memory_utilization: expected a share between 0 and 1 of a GPU's memory, got "
        "40; models and live model have the rest",
        "engine.max_num_seq: expected one of enforce_eager, gpu_memory_utilization, "
        "max_num_seqs, tensor_parallel_size, got 'max_num_seq'; did you mean 'max_num_seqs'?",
        "engine.tensor_parallel_size: expected at most the 1 GPUs of a worker, got 2; set "
        "execution.gpus_per_worker: 2",
    ]
