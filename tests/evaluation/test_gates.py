"""Broken candidates are recognised, parents never are."""

from __future__ import annotations

import math

import pytest
import torch

from evomerge.evaluation import PreparedSuites
from evomerge.evaluation.gates import Gates, Health, worst
from evomerge.evaluation.probe import Gate, is_runaway

from .tiny_tasks import write_task

HEALTHY = Health(nats_per_token=2.0, runaway=0.1)


def test_parents_pass_their_own_gates():
    parents = [Health(2.0, 0.0), Health(5.0, 1.0), Health(3.0, 0.5)]
    assert all(Gates().reason(parent, worst(parents)) is None for parent in parents)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (Health(math.nan, 0.0), "its logits are not finite"),
        (Health(math.inf, 0.0), "its logits are not finite"),
        (Health(2.0 + math.log(10.1), 0.0), "its perplexity on the prompts is 74.63"),
        (Health(2.0, 0.9), "90% of its greedy answers repeat themselves without end"),
        (Health(2.0 + math.log(9.9), 0.8), None),
    ],
)
def test_a_broken_candidate_is_given_up_with_its_reason(candidate, reason):
    given = Gates().reason(candidate, HEALTHY)
    assert given is None if reason is None else reason in given


def test_a_parent_without_finite_logits_does_not_open_the_gate():
    assert worst([HEALTHY, Health(math.nan, 0.0)]) == HEALTHY


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([7] * 30, True),
        ([], True),
        ([*range(10), *[1, 2, 3] * 10], True),
        (list(range(40)), False),
        ([1, 2, 3, 4, 5] * 3 + list(range(20)), False),
    ],
)
def test_an_answer_that_repeats_itself_is_runaway(tokens, expected):
    assert is_runaway(tokens) is expected


@pytest.fixture
def gate(suite, folder, model, tokenizer):
    write_task(folder, "tiny_generate", generation_kwargs={"until": ["."], "max_gen_toks": 60})
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    gates = Gates(answer_tokens=16)
    probes = prepared.probes(gates)
    return Gate(gates, probes, iter([None])), probes


def test_the_perplexity_of_the_probe_is_that_of_the_prompts(gate, suite, model, tokenizer):
    _, (probe,) = gate
    nats, n = 0.0, 0
    for text in probe.texts:
        tokens = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text)]])
        with torch.no_grad():
            loss = model(tokens, labels=tokens).loss.item()
        nats, n = nats + loss * (tokens.shape[1] - 1), n + tokens.shape[1] - 1
    assert probe.measure().nats_per_token == pytest.approx(nats / n, rel=1e-5)


@torch.no_grad()
def test_models_broken_in_three_ways_are_recognised(gate, model, tokenizer):
    gate, (probe,) = gate
    assert gate.reason() is None
    head = model.lm_head.weight
    kept = head.clone()
    head[3, 0] = math.nan
    assert gate.reason() == "its logits are not finite"
    head.copy_(kept * 30)
    assert "its perplexity on the prompts" in gate.reason()
    head.copy_(kept)
    model.model.norm.weight.zero_()  # all tokens alike: no high perplexity, but one token for ever
    assert probe.measure().runaway == 1.0
