"""Prompts that join answers under way are answered as each of them by itself."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from evomerge.evaluation.kinds import Asked
from evomerge.evaluation.prefix import PrefixCache
from evomerge.evaluation.running import Prompts, write
from evomerge.evaluation.stops import Stops
from evomerge.evaluation.transformers_engine import TransformersEngine
from tests.tiny import WORDS

from .test_prefix import engine_on, passes

MOST = 12  # tokens of an answer
END = 3
ENDS = ("w7", "w2")  # and whatever begins so
SETTINGS = {"until": list(ENDS), "max_gen_toks": MOST, "do_sample": False}
_LOCAL = {"attention_types": [[["local"], 3]], "window_size": 8}
# Windows of 8 tokens in every layer, in some, and in masks only.
CHANGES = {"llama": {}, "mistral": {}, "gemma3": {}, "gpt_neo": _LOCAL}


def prompts(n: int, *, begin: Sequence[str] = ()) -> tuple[str, ...]:
    """Prompts of two to twenty words."""
    drawn = random.Random(0)
    own = [drawn.choices(WORDS[3:], k=drawn.randint(2, 20)) for _ in range(n)]
    return tuple(" ".join([*begin, *words]) for words in own)


def asked(engine: TransformersEngine, texts: tuple[str, ...], **settings: object) -> Asked:
    stops = Stops(engine.language_model, SETTINGS)
    return Asked(texts, ("one",) * len(texts), {**SETTINGS, **settings}, stops)


def with_rows(engine: TransformersEngine, rows: int) -> None:
    """Leave room for so many answers."""
    engine.__dict__["_rows"] = lambda _: rows


def alone(model: PreTrainedModel, engine: TransformersEngine, text: str) -> tuple[str, int]:
    """What transformers' own loop says to one prompt, up to its first stop string."""
    tokenizer = engine.language_model.lm.tokenizer
    given = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    whole = model.generate(**given, max_new_tokens=MOST, do_sample=False)[
        0, given.input_ids.shape[1] :
    ]
    for n in range(1, len(whole) + 1):
        said = tokenizer.decode(whole[:n], skip_special_tokens=True)
        cuts = [said.index(end) for end in ENDS if end in said]
        if cuts:
            return said[: min(cuts)], n
    return said, len(whole)


@pytest.mark.parametrize("family", CHANGES)
def test_answers_are_those_of_each_prompt_alone(family: str, tmp_path: Path) -> None:
    begin = WORDS[3:] * 2 if family in ("llama", "gemma3") else ()  # run once, before all
    model, engine = engine_on(family, tmp_path, **CHANGES[family])
    texts = prompts(7, begin=begin)
    with_rows(engine, rows=5)
    with passes(model) as shapes:
        answers = engine.texts(asked(engine, texts))()
    expected = [alone(model, engine, text) for text in texts]
    assert [(answer.response, answer.tokens) for answer in answers] == expected
    assert len({answer.tokens for answer in answers}) > 1
    assert any(
        a > 1 and b == 1 and more > n > 0 for (n, a), (more, b) in itertools.pairwise(shapes)
    )  # joined
    assert max(rows for rows, _ in shapes) <= 5


def test_a_batch_is_refilled_and_takes_fewer_steps(tmp_path: Path) -> None:
    model, engine = engine_on("llama", tmp_path)
    texts = prompts(16)
    with_rows(engine, rows=4)
    waiting = TransformersEngine(model, engine.language_model.lm.tokenizer, 4)

    def steps(one: TransformersEngine) -> list[int]:
        part = one.texts(asked(one, texts))
        with passes(model) as shapes:
            part()
        return [sequences for sequences, length in shapes if length == 1]

    refilled, whole = steps(engine), steps(waiting)
    assert sum(refilled) == sum(whole)  # every token but the first of each answer, once
    assert len(refilled) < 0.7 * len(whole)


def test_drawn_answers_are_the_same_in_any_batch(tmp_path: Path) -> None:
    _, engine = engine_on("llama", tmp_path)
    texts = prompts(9)
    drawn = dataclasses.replace(
        asked(engine, texts, do_sample=True, temperature=1.0), seeds=tuple(range(9))
    )
    said = []
    for rows in (1, 4, 36):
        with_rows(engine, rows)
        said.append([answer.response for answer in engine.texts(drawn)()])
    assert said[0] == said[1] == said[2]
    assert len(set(said[0])) > 2


@pytest.mark.parametrize("why", ["batches of a given size", "positions that change with length"])
def test_prompts_that_may_not_join_wait_for_a_batch_to_end(why: str, tmp_path: Path) -> None:
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    changes = {"rope_parameters": scaled} if why.startswith("positions") else {}
    model, engine = engine_on("llama", tmp_path, **changes)
    if not changes:
        tokenizer = engine.language_model.lm.tokenizer
        engine = TransformersEngine(model, tokenizer, 3)
    else:
        engine.__dict__["_tokens_per_batch"] = 3 * (20 + MOST)
    texts = prompts(6)
    part = engine.texts(asked(engine, texts))
    with passes(model) as shapes:
        answers = part()
    assert [(a.response, a.tokens) for a in answers] == [alone(model, engine, t) for t in texts]
    steps = [rows for rows, _ in shapes]
    begun = [k for k, (_, length) in enumerate(shapes) if length > 1]
    for start, end in zip(begun, [*begun[1:], len(steps)], strict=True):
        assert steps[start:end] == sorted(steps[start:end], reverse=True)
    assert len(begun) >= 2


def test_columns_that_are_padding_in_every_row_are_dropped(tmp_path: Path) -> None:
    """Otherwise every row would drag along the length of the longest that ever was."""
    model, engine = engine_on("llama", tmp_path)
    texts = (" ".join(WORDS[3:]), *prompts(12))
    with_rows(engine, rows=4)
    widths: list[int] = []

    def note(_: object, __: object, given: dict[str, torch.Tensor]) -> None:
        widths.append(given["attention_mask"].shape[1])

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    engine.texts(asked(engine, texts))()
    handle.remove()
    assert max(widths) >= len(WORDS[3:])
    assert max(widths[-5:]) <= 20 + MOST


def test_a_batch_is_no_wider_than_the_longest_of_its_answers(tmp_path: Path) -> None:
    """GPT-Neo has masks for as many columns as its context has positions, and no more."""
    model, _ = engine_on("gpt_neo", tmp_path, **_LOCAL, max_position_embeddings=20 + MOST)
    lengths = [MOST, MOST - 1, MOST]  # the last joins just before the first, which is long, ends
    said = [0, 0, 0]

    def choose(_: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
        for n in answers:
            said[n] += 1
        return torch.tensor([END if said[n] == lengths[n] else END + 1 for n in answers])

    waiting = [
        Prompts((n,), torch.full((1, length), 5), torch.ones(1, length, dtype=torch.long), MOST)
        for n, length in enumerate((20, 2, 2))
    ]
    stops: Any = SimpleNamespace(is_finished=lambda tokens: tokens[-1] == END)
    found = write(model, waiting, PrefixCache(model, ()), stops, choose, rows=2)
    assert {one.number: len(one.tokens) for one in found} == dict(enumerate(lengths))


def test_answers_with_their_logits_fit_where_one_pass_does(tmp_path: Path) -> None:
    """Of short answers with a large vocabulary logits are most of what is held."""
    model, engine = engine_on("llama", tmp_path, vocab_size=8192)
    engine.__dict__["_tokens_per_batch"] = tokens = 64
    texts = tuple(" ".join(pair) for pair in itertools.permutations(WORDS[3:14], 2))
    config = model.config
    of_head = config.hidden_size // config.num_attention_heads
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * of_head * 4
    logits = config.vocab_size * 4
    with passes(model) as shapes:
        engine.texts(asked(engine, texts))()
    most = max(rows for rows, _ in shapes)
    length = 2 + MOST
    room = tokens * (kept + logits)
    assert room * 3 / 4 < most * (length * kept + logits) <= room
