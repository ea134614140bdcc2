"""Sharing what prompts begin with changes what is computed, and nothing else."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from evomerge.evaluation import PreparedSuites, Suite
from evomerge.evaluation.batches import Pair
from evomerge.evaluation.engine import Answer
from evomerge.evaluation.kinds import Asked
from evomerge.evaluation.prefix import families
from evomerge.evaluation.stops import Stops
from evomerge.evaluation.transformers_engine import TransformersEngine
from tests.architectures import FAMILIES, tiny_model
from tests.tiny import WORDS

from .test_prepared import Reference
from .tiny_tasks import write_task

CONTEXT = 128
FIRST_EIGHT = {
    "num_fewshot": 8,
    "fewshot_split": "train",
    "fewshot_config": {"sampler": "first_n"},
}
_LOCAL = {"attention_types": [[["local"], 3]], "window_size": 8}  # windows of its own
SETTINGS = {"until": ["w1"], "max_gen_toks": 6, "do_sample": False}


@contextmanager
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """Collect the sequences and their tokens of every forward pass."""
    shapes: list[tuple[int, int]] = []
    handle = model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    yield shapes
    handle.remove()


def engine_on(family: str, folder, **changes) -> tuple[PreTrainedModel, TransformersEngine]:
    changes = {"max_position_embeddings": CONTEXT, **changes}
    model = tiny_model(family, folder, seed=0, dtype=torch.float32, **changes)
    return model, TransformersEngine(model, PreTrainedTokenizerFast.from_pretrained(folder), "auto")


@pytest.fixture(scope="module", params=[*FAMILIES, "mistral-wide", "gemma3-wide", "gpt_neo"])
def engine(request, tmp_path_factory) -> TransformersEngine:
    """Families with sliding windows look back 8 tokens, and once more all the way."""
    family, _, wide = request.param.partition("-")
    changes = {"sliding_window": CONTEXT} if wide else _LOCAL if family == "gpt_neo" else {}
    return engine_on(family, tmp_path_factory.mktemp("model"), **changes)[1]


def asked(engine: TransformersEngine, texts: Sequence[str], tasks: Sequence[str]) -> Asked:
    """Prompts that are answered with the likeliest tokens."""
    return Asked(tuple(texts), tuple(tasks), SETTINGS, Stops(engine.language_model, SETTINGS))


def tokens(generator: random.Random, low: int, high: int) -> list[int]:
    return [generator.randrange(3, len(WORDS)) for _ in range(generator.randint(low, high))]


def prompts_of(generator: random.Random, n: int) -> list[list[int]]:
    prefix = tokens(generator, 32, 60)
    return [prefix + tokens(generator, 1, 12) for _ in range(n)]


def assert_same(shared: Sequence[Answer], apart: Sequence[Answer]) -> None:
    for one, other in zip(shared, apart, strict=True):
        assert one.tokens == other.tokens
        assert one.response[0] == pytest.approx(other.response[0], rel=1e-5)
        assert one.response[1] == other.response[1]


def apart(n: int) -> list[str]:
    """Name n tasks, so that none shares anything."""
    return [f"task {i}" for i in range(n)]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 5), n_choices=st.integers(1, 3))
def test_log_likelihoods_are_those_of_whole_prompts(engine, seed, n, n_choices):
    generator = random.Random(seed)
    pairs: list[Pair] = [
        (context, tokens(generator, 1, 6))
        for context in prompts_of(generator, n)
        for _ in range(n_choices)
    ]
    model = engine.language_model.lm.model
    with passes(model) as with_prefix:
        shared = engine.likelihoods(pairs, ["one"] * len(pairs))()
    with passes(model) as without:
        expected = engine.likelihoods(pairs, apart(len(pairs)))()
    assert_same(shared, expected)
    assert sum(a * b for a, b in with_prefix) < sum(a * b for a, b in without)


def test_texts_that_are_scored_whole_begin_alike_and_come_in_batches(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.evaluation.batches._TOKENS_PER_BATCH", 64)
    model, engine = engine_on("llama", tmp_path)
    generator = random.Random(0)
    pairs: list[Pair] = [([2], tokens(generator, 1, 12)) for _ in range(120)]
    with passes(model) as shapes:
        together = engine.windows(pairs)()
    assert max(n * length for n, length in shapes) <= 64
    assert len(shapes) < 60
    assert_same(together, [engine.windows([pair])()[0] for pair in pairs])


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 5))
def test_greedy_answers_are_those_of_whole_prompts(engine, seed, n):
    texts = [" ".join(WORDS[t] for t in p) for p in prompts_of(random.Random(seed), n)]
    shared = engine.texts(asked(engine, texts, ["one"] * n))()
    expected = engine.texts(asked(engine, texts, apart(n)))()
    assert [a.response for a in shared] == [a.response for a in expected]
    assert [a.tokens for a in shared] == [a.tokens for a in expected]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(1, 40))))
def test_families_hold_every_request_once_and_leave_a_token_of_each(drawn):
    prompts = [[0] * same + [i + 1] * own for i, (_, same, own) in enumerate(drawn)]
    tasks = [task for task, _, _ in drawn]
    found = families(prompts, tasks)
    assert sorted(i for family in found for i in family.requests) == list(range(len(prompts)))
    for family in found:
        for i in family.requests:
            assert tuple(prompts[i][: len(family.prefix)]) == family.prefix
            assert len(prompts[i]) > len(family.prefix)
    assert all(len(family.prefix) >= 32 for family in found[:-1])


@pytest.mark.parametrize(
    ("shared", "own", "n", "pays"),
    [(40, 10, 2, True), (31, 1, 20, False), (40, 160, 20, False), (40, 100, 20, True),
     (40, 1, 1, False), (40, 50, 2, False)],
)  # fmt: skip
def test_a_prefix_is_shared_if_that_saves_a_quarter(shared, own, n, pays):
    (family,) = families([[0] * shared + [i + 1] * own for i in range(n)], ["task"] * n)
    assert len(family.prefix) == (shared if pays else 0)


def test_the_choices_of_one_item_are_no_family():
    (family,) = families([[0] * 50] * 4, ["task"] * 4)
    assert not family.prefix


def test_a_prompt_longer_than_the_context_is_cut_as_before(tmp_path):
    _, engine = engine_on("llama", tmp_path)
    generator = random.Random(0)
    prompts = prompts_of(generator, 3)
    pairs: list[Pair] = [(p, tokens(generator, 1, 3)) for p in prompts]
    pairs.append((prompts[0] + [5] * CONTEXT, [7]))
    assert_same(engine.likelihoods(pairs, ["one"] * 4)(), engine.likelihoods(pairs, apart(4))())
    texts = [" ".join(WORDS[t] for t in context) for context, _ in pairs]
    both = (asked(engine, texts, tasks) for tasks in (["one"] * 4, apart(4)))
    answers = [engine.texts(each)() for each in both]
    assert [a.response for a in answers[0]] == [a.response for a in answers[1]]


_ROPES = {
    "dynamic": ("llama", {"factor": 4.0}),
    "longrope": (
        "phi3",
        {
            "long_factor": [4.0] * 4,
            "short_factor": [1.0] * 4,
            "original_max_position_embeddings": 64,
        },
    ),
    "linear": ("llama", {"factor": 4.0}),
}


@pytest.mark.parametrize("rope_type", _ROPES)
def test_positions_that_depend_on_the_length_are_not_shared(rope_type, tmp_path):
    family, settings = _ROPES[rope_type]
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, **settings}
    model, engine = engine_on(
        family,
        tmp_path,
        rope_parameters=rope,
        max_position_embeddings=64 if family == "llama" else 128,
    )
    prefix = tokens(random.Random(0), 40, 40)
    pairs: list[Pair] = [([*prefix, i], [4, 5]) for i in range(3, 6)]
    with passes(model) as shapes:
        engine.likelihoods(pairs, ["one"] * 3)()
    assert ((1, 40) in shapes) == (rope_type == "linear")


@pytest.fixture
def fewshot(folder, suite) -> Suite:
    """Three tasks whose prompts are mostly examples, and one whose are not."""
    write_task(folder, "tiny_fewshot", **FIRST_EIGHT)
    write_task(folder, "tiny_generate", **FIRST_EIGHT)
    choices = "{{[c + ' plus ' + a, b, a + ' ' + b + ' is', b]}}"
    write_task(folder, "tiny_choice", **FIRST_EIGHT, doc_to_choice=choices)
    names = ("tiny_choice", "tiny_fewshot", "tiny_generate", "tiny_likelihood")
    return dataclasses.replace(suite, tasks=names, batch_size="auto")


def test_each_prefix_is_run_once_per_candidate(fewshot, model, tokenizer):
    prepared = PreparedSuites.of([fewshot], "search", model, tokenizer)
    for _ in range(2):
        with passes(model) as shapes:
            prepared.score()
        prefixes = [length for n, length in shapes if n == 1 and length >= 32]
        assert len(prefixes) == 3
        assert all(length < 32 for n, length in shapes if n > 1)


def test_a_batch_size_leaves_prompts_whole(fewshot, model, tokenizer):
    sized = dataclasses.replace(fewshot, batch_size=8)
    prepared = PreparedSuites.of([sized], "search", model, tokenizer)
    with passes(model) as shapes:
        prepared.score()
    assert not [length for n, length in shapes if n == 1 and length > 1]
    assert max(length for n, length in shapes) > 40


def test_rungs_score_as_all_at_once(fewshot, model, tokenizer):
    at_once = PreparedSuites.of([fewshot], "search", model, tokenizer).score()
    prepared = PreparedSuites.of([fewshot], "search", model, tokenizer, rungs=(0.25, 0.5))
    with passes(model) as shapes:
        scores = prepared.score()
    assert any(n == 1 and length >= 32 for n, length in shapes)
    assert [(i.task, i.item, i.metric, i.score) for i in scores.items] == [
        (i.task, i.item, i.metric, pytest.approx(i.score, rel=1e-5)) for i in at_once.items
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_scores_as_simple_evaluate(fewshot, model, tokenizer, tmp_path, dtype):
    model = model.to(dtype)
    scores = PreparedSuites.of([fewshot], "search", model, tokenizer).score()
    results = Reference(fewshot, tmp_path / "r", "search").score(model, tokenizer)
    for task, table in scores.metrics.items():
        for metric, value in table.items():
            assert value.value == pytest.approx(results[task][f"{metric},none"], rel=1e-5)
