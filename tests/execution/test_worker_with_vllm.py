"""A worker with vLLM scores every recipe as one with transformers does."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge.config.presets import Presets
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.gates import Gates
from evomerge.execution.protocol import Failed, Job, Pruned, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.models.zoo import zoo_path
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import load_suites

pytest.importorskip("vllm")
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerSpec:
    """Random models of a shape that vLLM runs on CPU, too, on the items of the embedded ones."""
    from transformers import AutoTokenizer

    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("base"))
    for seed, name in enumerate(("base", "near", "far")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    experts = {name: str(tmp_path / name) for name in ("near", "far")}
    (zoo,) = load_suites(["zoo"], Presets(), Path.cwd())
    suite = dataclasses.replace(zoo, limit=12)
    return WorkerSpec(
        str(tmp_path / "base"), experts, (suite,), device=DEVICE, gates=Gates(), rungs=(0.5,)
    )


def job(spec: WorkerSpec, coefficient: float) -> Job:
    rules = (Rule("task_arithmetic", {"coefficient": coefficient}),)
    return Job(0, Recipe(spec.experts, rules, spec.base), is_gated=True)


def test_every_recipe_scores_as_with_transformers(spec: WorkerSpec) -> None:
    jobs = [job(spec, coefficient) for coefficient in (0.0, 0.2, 0.4)]
    with_vllm = Worker(dataclasses.replace(spec, engine=EngineChoice(name="vllm")))
    ours = [with_vllm.run(one) for one in jobs]
    worker = Worker(spec)  # shares the cache of scores
    seen: set[float] = set()
    for one, a in zip(jobs, ours, strict=True):
        b = worker.run(one)
        assert isinstance(a, Scored), a
        assert isinstance(b, Scored), b
        for x, y in zip(a.scores.items, b.scores.items, strict=True):
            assert (x.task, x.item, x.metric, x.tokens) == (y.task, y.item, y.metric, y.tokens)
            assert x.score == pytest.approx(y.score, rel=1e-4, abs=1e-4)
        seen.add(sum(item.score for item in a.scores.items))
        assert a.scores.items != b.scores.items  # rounded differently, and not from the cache
    assert len(seen) == len(jobs)

    reasons = []
    for one in (with_vllm, worker):
        pruned = one.run(job(spec, 1.0))  # the sum of random models has lost all scale
        assert isinstance(pruned, Pruned)
        reasons.append(pruned.reason)
    assert reasons[0][:40] == reasons[1][:40]

    path = tuple(Hop("base", layer) for layer in (0, 2))
    hopping = dataclasses.replace(jobs[0], recipe=dataclasses.replace(jobs[0].recipe, path=path))
    failed = with_vllm.run(hopping)
    assert isinstance(failed, Failed)
    assert "engine vllm: expected a merge without a data-flow path" in failed.error
