"""Answers that are drawn: from the right distribution, the same in any batch, several per item."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.evaluation import PreparedSuites, Suite, TaskCatalogue
from evomerge.evaluation.catalogue import prompt_suites
from evomerge.evaluation.choosing import Draws
from evomerge.evaluation.generation import Generation
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.own_metrics import OwnMetric

from .bigrams import bigram_llama, word_tokenizer
from .tiny_tasks import DIGITS, GENERATE, metrics_of, write_data, write_task

COIN = {"four": 0.5, "five": 0.3, "six": 0.2}
DRAWN = Generation(do_sample=True, temperature=1.0)


@pytest.fixture
def live() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    words = [*DIGITS, "plus", "is"]
    tokenizer = word_tokenizer(words)
    following = {"is": COIN, **{word: {"</s>": 0.5, "four": 0.5} for word in COIN}}
    return bigram_llama(tokenizer, following), tokenizer


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    write_data(tmp_path)
    first = {"name": "none", "filter": [{"function": "take_first"}]}
    word = {"name": "word", "filter": [
        {"function": "regex", "regex_pattern": r"(\w+)"}, {"function": "take_first"},
    ]}  # fmt: skip
    settings = {"until": [], "max_gen_toks": 4, "do_sample": False}
    write_task(tmp_path, "tiny_drawn", **GENERATE | {
        "filter_list": [first, word], "generation_kwargs": settings,
    })  # fmt: skip
    return Suite(
        "tiny", ("tiny_drawn",), include_path=tmp_path, splits={"search": "search"},
        generation_kwargs=DRAWN, repeats=3,
    )  # fmt: skip


def drawn(suite: Suite, live: tuple[object, ...]) -> dict[str, list[str]]:
    """The answers to each prompt."""
    prepared = PreparedSuites.of([suite], "search", *live)
    prepared.score()
    return {r.args[0]: list(map(str, r.resps)) for r in prepared.tasks[0].task.instances}


def test_probabilities_are_those_of_temperature_and_nucleus() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    hot = np.exp(np.arange(5) / 2.0)  # temperature 2
    cases = {
        Draws(2.0, 0, 1.0, 0.0): hot,
        Draws(2.0, 3, 1.0, 0.0): hot * [0, 0, 1, 1, 1],
        Draws(2.0, 0, 0.5, 0.0): hot * [0, 0, 0, 1, 1],  # 0.43 of all, then 0.26
        Draws(2.0, 0, 1.0, 0.3): hot * [0, 0, 1, 1, 1],  # e^-1 of the likeliest, not e^-1.5
    }
    for draws, kept in cases.items():
        found = draws.probabilities(logits)[0].numpy()
        np.testing.assert_allclose(found, kept / kept.sum(), rtol=1e-6)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    n, probabilities = 4000, np.array([0.5, 0.0, 0.3, 0.2])
    logits = torch.tensor(probabilities).log().expand(n, 4)
    choose = Draws(1.0, 0, 1.0, 0.0).chooser(range(n))
    counts = np.bincount(choose(logits, range(n)).numpy(), minlength=4)
    spread = np.sqrt(n * probabilities * (1 - probabilities))
    assert (abs(counts - n * probabilities) <= 4 * spread).all()
    # By hand: the number of an answer's own stream falls among the cumulated probabilities.
    numbers = [np.random.default_rng(seed).random() for seed in range(20)]
    expected = np.searchsorted([0.5, 0.5, 0.8, 1.0], numbers, side="right")
    assert Draws(1.0, 0, 1.0, 0.0).chooser(range(20))(logits[:20], range(20)).tolist() == list(
        expected
    )


def test_what_a_task_does_not_say_is_the_models_and_then_transformers() -> None:
    own = GenerationConfig(temperature=0.6, top_k=20)
    assert Draws.of({"temperature": 0.7}, own) == Draws(0.7, 20, 1.0, 0.0)
    assert Draws.of({"top_k": 0, "top_p": 0.9}, GenerationConfig()) == Draws(1.0, 0, 0.9, 0.0)
    assert Draws.of({}, GenerationConfig()).top_k == 50


def test_an_answer_is_the_same_in_any_batch(suite: Suite, live) -> None:
    found = drawn(suite, live)
    assert len({tuple(answers) for answers in found.values()}) > 5
    assert any(len(set(answers)) == 3 for answers in found.values())
    for size in (1, 5):
        assert drawn(dataclasses.replace(suite, batch_size=size), live) == found
    few = drawn(dataclasses.replace(suite, limit=3), live)
    assert few == {prompt: found[prompt] for prompt in few}
    more = drawn(dataclasses.replace(suite, repeats=5), live)
    assert {prompt: answers[:3] for prompt, answers in more.items()} == found
    seeded = dataclasses.replace(suite, generation_kwargs=dataclasses.replace(DRAWN, seed=1))
    assert drawn(seeded, live) != found


def test_a_metric_of_ones_own_scores_every_answer(suite: Suite, live, tmp_path: Path) -> None:
    file = tmp_path / "metrics.py"
    file.write_text("def words(doc, answers, target):\n    return len(answers[0].split())\n")
    own = dataclasses.replace(suite, allow_code=True, metrics={"words": OwnMetric(file=str(file))})
    prepared = PreparedSuites.of([own], "search", *live)
    metrics = prepared.score().metrics["tiny_drawn"]
    counts = [
        fmean(len(answer.split()) for answer in item.requests[0].resps)
        for item in prepared.tasks[0].items
    ]
    assert len(set(counts)) > 1
    assert metrics["words,mean@3"].value == pytest.approx(fmean(counts))
    assert metrics["words,word-mean@3"].value == 1.0
    known = TaskCatalogue.of([own]).metrics["tiny_drawn"]
    assert {name for name in metrics if name.startswith("words")} <= set(known)


def test_several_answers_count_by_mean_majority_and_best(suite: Suite, live) -> None:
    prepared = PreparedSuites.of([suite], "search", *live)
    scores = prepared.score()
    items = [(i.doc["c"], list(i.requests[0].resps)) for i in prepared.tasks[0].items]
    right = [[answer.split()[0] == gold for answer in answers] for gold, answers in items]
    voted = [Counter(a.split()[0] for a in answers).most_common(1)[0][0] for _, answers in items]
    expected = {
        "word": fmean(each[0] for each in right),
        "word-maj@3": fmean(v == gold for v, (gold, _) in zip(voted, items, strict=True)),
        "word-mean@3": fmean(fmean(each) for each in right),
        "word-pass@3": fmean(any(each) for each in right),
    }
    assert len(set(expected.values())) > 2
    metrics = scores.metrics["tiny_drawn"]
    assert {name: metrics[f"exact_match,{name}"].value for name in expected} == pytest.approx(
        expected
    )
    assert {"exact_match", "exact_match,mean@3", "exact_match,maj@3"} <= set(metrics)


def test_drawn_scores_are_kept_unless_lm_eval_draws(suite: Suite, live, monkeypatch) -> None:
    assert PreparedSuites.of([suite], "search", *live).digest is not None
    monkeypatch.setattr("evomerge.evaluation.transformers_engine.can_decode", lambda _: False)
    slow = PreparedSuites.of([suite], "search", *live)
    assert slow.digest is None
    assert slow.score().metrics["tiny_drawn"]["exact_match,word-mean@3"].value > 0


def test_prompts_with_several_answers_travel_to_workers(suite: Suite, live) -> None:
    there = pickle.loads(pickle.dumps(prompt_suites([suite], "search", *live)))
    assert PreparedSuites(there, *live).score().metrics == (
        PreparedSuites.of([suite], "search", *live).score().metrics
    )


def test_metrics_of_samples_are_known_before_anything_is_scored(suite: Suite, live) -> None:
    scored = PreparedSuites.of([suite], "search", *live).score().metrics["tiny_drawn"]
    known = metrics_of([suite], LanguageModel(*live, 1))["tiny_drawn"]
    assert set(scored) == set(known) - {"gold_bpb"}
