"""Batches that do not fit into memory: the allocator's own errors, floats of smaller batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from evomerge.evaluation import PreparedSuites, Suite
from evomerge.evaluation.batches import Pair
from evomerge.evaluation.suite import BatchSize
from evomerge.evaluation.transformers_engine import TransformersEngine
from tests.architectures import tiny_model

from .test_prefix import asked, passes, tokens
from .tiny_tasks import write_data, write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return tiny_model("llama", folder, seed=0, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(model: PreTrainedModel, folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folder)


@contextmanager
def room_for(model: PreTrainedModel, most: int) -> Iterator[None]:
    """Let a pass of more sequences ask the allocator for an exabyte."""

    def ask(_: object, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) > most:
            torch.empty(1 << 60, dtype=torch.uint8)

    handle = model.register_forward_pre_hook(ask)
    try:
        yield
    finally:
        handle.remove()


def pairs(n: int) -> list[Pair]:
    generator = random.Random(0)
    return [(tokens(generator, 3, 20), tokens(generator, 1, 4)) for _ in range(n)]


def responses(part) -> list[object]:
    return [answer.response for answer in part()]


def test_what_is_answered_is_what_a_smaller_batch_size_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    scored = pairs(16)
    tasks = ["t"] * 16
    texts = [tokenizer.decode(context) for context, _ in scored]
    engine, small = (TransformersEngine(model, tokenizer, size) for size in (8, 2))
    before = engine.arithmetic
    likelihoods = engine.likelihoods(scored, tasks)
    greedy = engine.texts(asked(engine, texts, tasks))
    with room_for(model, 2):
        assert responses(likelihoods) == responses(small.likelihoods(scored, tasks))
        assert responses(greedy) == responses(small.texts(asked(small, texts, tasks)))
    said = [record.message for record in caplog.records if "memory" in record.message]
    assert [text.split(":")[0] for text in said] == ["memory ran out"]
    with passes(model) as shapes:  # it does not try again what did not fit
        likelihoods()
    assert {sequences for sequences, _ in shapes} == {2}
    assert engine.arithmetic != before


@pytest.mark.parametrize("batch_size", ["auto", 8])
def test_one_sequence_that_does_not_fit_is_an_error(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: BatchSize
) -> None:
    engine = TransformersEngine(model, tokenizer, batch_size)
    part = engine.likelihoods(pairs(8), ["t"] * 8)
    with room_for(model, 0), pytest.raises(RuntimeError, match="allocate memory"):
        part()


def test_filled_batches_shrink_and_their_scores_have_another_name(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_data(tmp_path, 12)
    write_task(tmp_path, "tiny_gen")
    suite = Suite("s", ("tiny_gen",), include_path=tmp_path)
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    whole, digest = prepared.score(), prepared.digest
    assert digest == prepared.digest
    with room_for(model, 1):
        halved = prepared.score()
    assert [(i.item, i.score) for i in halved.items] == [(i.item, i.score) for i in whole.items]
    assert prepared.digest != digest


def test_other_errors_are_not_taken_for_it(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("expected scalar type Float")

    part = TransformersEngine(model, tokenizer, 8).likelihoods(pairs(8), ["t"] * 8)
    handle = model.register_forward_pre_hook(fail)
    with passes(model) as shapes, pytest.raises(RuntimeError, match="scalar type"):
        part()
    handle.remove()
    assert len(shapes) == 0
