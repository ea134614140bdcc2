"""Smooth metrics against brute force: one unpadded forward pass per answer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from evomerge.evaluation import PreparedSuites

from .tiny_tasks import NAMED, metrics_of, write_task


def brute_force(model, tokenizer, context: str, continuation: str) -> float:
    """Log-likelihood of a continuation, token by token."""
    start = tokenizer.encode(context) if context else [tokenizer.bos_token_id]
    tokens = (
        tokenizer.encode(context + continuation)
        if context
        else start + tokenizer.encode(continuation)
    )
    with torch.no_grad():
        log_probs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return sum(log_probs[i - 1, tokens[i]].item() for i in range(len(start), len(tokens)))


def smooth(suite, model, tokenizer, *names):
    suite = dataclasses.replace(suite, tasks=names, smooth=frozenset(names))
    return PreparedSuites.of([suite], "search", model, tokenizer)


def test_choices_are_scored_as_by_brute_force(suite, model, tokenizer):
    prepared = smooth(suite, model, tokenizer, "tiny_choice")
    metrics = prepared.score().metrics["tiny_choice"]
    bits, sizes, gold_probabilities, briers = [], [], [], []
    for item in prepared.tasks[0].items:
        doc = item.doc
        context = f"{doc['a']} plus {doc['b']} is"
        texts = [f" {choice}" for choice in doc["choices"]]
        lls = [brute_force(model, tokenizer, context, text) for text in texts]
        rates = [math.exp(ll / len(text)) for ll, text in zip(lls, texts, strict=True)]
        shares = [rate / sum(rates) for rate in rates]
        gold = doc["gold"]
        bits.append(-lls[gold] / math.log(2))
        sizes.append(len(texts[gold]))
        gold_probabilities.append(shares[gold])
        briers.append(sum((p - (i == gold)) ** 2 for i, p in enumerate(shares)))
    n = len(bits)
    assert metrics["gold_bpb"].value == pytest.approx(sum(bits) / sum(sizes), rel=1e-5)
    assert metrics["gold_probability"].value == pytest.approx(sum(gold_probabilities) / n, rel=1e-5)
    assert metrics["brier"].value == pytest.approx(sum(briers) / n, rel=1e-5)
    assert all(metrics[name].n == n for name in ("gold_bpb", "gold_probability", "brier"))
    spread = torch.tensor(briers).std().item() / math.sqrt(n)
    assert metrics["brier"].stderr == pytest.approx(spread, rel=1e-4)


@pytest.mark.parametrize(
    ("task", "context", "answer"),
    [
        ("tiny_generate", "{a} plus {b} is", " {c}"),
        ("tiny_likelihood", "{a} plus {b} is", " {c}"),
        ("tiny_rolling", "", "{a} plus {b} is {c}"),
    ],
)
def test_gold_answers_are_scored_as_by_brute_force(task, context, answer, suite, model, tokenizer):
    prepared = smooth(suite, model, tokenizer, task)
    scores = prepared.score()
    bits, sizes = [], []
    for item in prepared.tasks[0].items:
        text = answer.format(**item.doc)
        bits.append(-brute_force(model, tokenizer, context.format(**item.doc), text) / math.log(2))
        sizes.append(len(text))
    value = scores.metrics[task]["gold_bpb"]
    assert value.value == pytest.approx(sum(bits) / sum(sizes), rel=1e-5)
    per_byte = {
        i.row: 2 ** (-b / s) for i, b, s in zip(prepared.tasks[0].items, bits, sizes, strict=True)
    }
    for item in scores.items:
        assert item.smooth == pytest.approx(per_byte[item.item], rel=1e-4)


def test_the_stderr_of_bits_per_byte_is_that_of_resampled_items(suite, model, tokenizer):
    prepared = smooth(suite, model, tokenizer, "tiny_likelihood")
    scores = prepared.score()
    value = scores.metrics["tiny_likelihood"]["gold_bpb"]
    length = {item.row: len(item.requests[0].args[1]) for item in prepared.tasks[0].items}
    rates = {item.item: -math.log2(item.smooth) for item in scores.items}
    sizes = torch.tensor([float(length[row]) for row in rates])
    bits = torch.tensor([rate * length[row] for row, rate in rates.items()])
    draws = torch.randint(len(bits), (4000, len(bits)), generator=torch.Generator().manual_seed(0))
    ratios = bits[draws].sum(1) / sizes[draws].sum(1)
    assert value.stderr == pytest.approx(ratios.std().item(), rel=0.1)


def test_smooth_metrics_leave_the_tasks_own_numbers_alone(suite, model, tokenizer):
    names = ("tiny_generate", "tiny_choice", "tiny_likelihood")
    plain = PreparedSuites.of(
        [dataclasses.replace(suite, tasks=names)], "search", model, tokenizer
    ).score()
    asked = smooth(suite, model, tokenizer, *names).score()
    for task in names:
        own = plain.metrics[task]
        assert {name: asked.metrics[task][name] for name in own} == own
        assert set(asked.metrics[task]) > set(own)


def test_several_gold_answers_take_the_first(suite, folder, model, tokenizer):
    write_task(folder, "tiny_generate", doc_to_target="{{[c, a]}}")
    several = smooth(suite, model, tokenizer, "tiny_generate").score()
    write_task(folder, "tiny_generate")
    first = smooth(suite, model, tokenizer, "tiny_generate").score()
    assert (
        several.metrics["tiny_generate"]["gold_bpb"] == first.metrics["tiny_generate"]["gold_bpb"]
    )


def test_a_better_model_has_fewer_bits_per_byte(suite, model, tokenizer):
    prepared = smooth(suite, model, tokenizer, "tiny_likelihood")
    before = prepared.score().metrics["tiny_likelihood"]["gold_bpb"].value
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for item in prepared.tasks[0].items * 2:
        text = tokenizer(" ".join(item.requests[0].args), return_tensors="pt").input_ids
        model(text, labels=text).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert prepared.score().metrics["tiny_likelihood"]["gold_bpb"].value < before


def test_smooth_metrics_are_named_for_every_task(suite):
    names = metrics_of([suite])
    assert names["tiny_choice"][-3:] == ("gold_bpb", "gold_probability", "brier")
    for task in ("tiny_generate", "tiny_likelihood", "tiny_rolling"):
        assert names[task][-1] == "gold_bpb"
    assert set(NAMED) == set(suite.splits)
