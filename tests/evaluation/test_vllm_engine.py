"""vLLM answers as transformers does, now and after the model has changed.

Without a GPU this needs a CPU build of vLLM, whose start fails once numba is loaded. There, run
only ``pytest tests/evaluation/test_vllm_engine.py tests/execution/test_worker_with_vllm.py``, in
this order, with ``VLLM_TARGET_DEVICE=cpu``.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.errors import EvaluationError
from evomerge.evaluation import PreparedSuites, Scores

pytest.importorskip("vllm")
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB

from evomerge.evaluation.vllm_engine import VllmEngine, VllmModel

TASKS = ("tiny_generate", "tiny_group", "tiny_likelihood", "tiny_rolling")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = pytest.mark.timeout(600)


def llama(
    tokenizer: PreTrainedTokenizerFast, folder: Path, *, tied: bool = False
) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32, the smallest that vLLM knows
        num_key_value_heads=1,
        max_position_embeddings=96,
        initializer_range=0.4,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.to(DEVICE)


def inside_vllm(model: LlamaForCausalLM, folder: Path) -> VllmModel:
    return VllmModel(folder, model, dict(model.named_parameters()), memory_share=0.3)


@pytest.fixture(scope="module")
def live(tokenizer, tmp_path_factory) -> tuple[LlamaForCausalLM, VllmModel]:
    folder = tmp_path_factory.mktemp("llama")
    model = llama(tokenizer, folder)
    return model, inside_vllm(model, folder)


@pytest.fixture
def score(live, suite, tokenizer) -> Callable[[bool], Scores]:
    model, vllm = live
    suite = dataclasses.replace(suite, tasks=TASKS)
    theirs = PreparedSuites.of([suite], "search", model, tokenizer)
    engine = partial(VllmEngine, vllm)
    ours = PreparedSuites.of([suite], "search", model, tokenizer, make_engine=engine)
    return lambda is_vllm: (ours if is_vllm else theirs).score()


def assert_close(ours: Scores, theirs: Scores) -> None:
    assert len(ours.items) == len(theirs.items) > 0
    for a, b in zip(ours.items, theirs.items, strict=True):
        assert (a.task, a.item, a.metric, a.tokens) == (b.task, b.item, b.metric, b.tokens)
        assert a.score == pytest.approx(b.score, rel=1e-4, abs=1e-4)
    for task, metrics in theirs.metrics.items():
        for metric, value in metrics.items():
            assert ours.metrics[task][metric].value == pytest.approx(value.value, rel=1e-4)


def test_every_kind_of_task_scores_as_with_transformers(score):
    assert_close(score(True), score(False))


def test_an_update_reaches_every_parameter_and_no_answer_is_remembered(live, score):
    model, vllm = live
    before = score(True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    vllm.update()
    after = score(True)
    assert_close(after, score(False))
    assert [i.score for i in after.items] != [i.score for i in before.items]


def test_logits_that_are_no_numbers_are_reported_as_such(live, score):
    model, vllm = live
    kept = model.lm_head.weight.clone()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
        vllm.update()
        perplexity = score(True).metrics["tiny_rolling"]["word_perplexity"].value
        model.lm_head.weight.copy_(kept)
        vllm.update()
    assert math.isnan(perplexity)


def test_a_text_longer_than_the_context_of_vllm_is_refused(live):
    _, vllm = live
    assert len(vllm.fit([5] * 97)) == 95
    with pytest.raises(EvaluationError, match="expected at most 97 tokens, got 98"):
        vllm.fit([5] * 98)


@pytest.mark.skipif(DEVICE == "cuda", reason="vLLM's CPU build keeps a packed copy of tied heads")
def test_a_model_whose_parameters_vllm_does_not_take_over_is_refused(tokenizer, tmp_path):
    model = llama(tokenizer, tmp_path, tied=True)
    with pytest.raises(EvaluationError, match="does not take over all parameters of LlamaForC"):
        inside_vllm(model, tmp_path)
