"""Whether the engine scores a model as plain transformers does, one prompt at a time."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from evomerge.evaluation.kinds import Asked
from evomerge.evaluation.stops import Stops
from evomerge.evaluation.transformers_engine import TransformersEngine
from tests.tiny import WORDS

__all__ = ["scoring_fault"]

_TOLERANCE = 1e-3
_ANSWER = 4


def scoring_fault(model: PreTrainedModel, folder: Path) -> str:
    """Compare prompts that share a beginning and differ in length, batched and alone.

    Args:
        model: A live one, in float32.
        folder: Where its tokenizer is.

    Returns:
        What differs; empty where nothing does.
    """
    draw = random.Random(0)
    prefix = [draw.randrange(3, len(WORDS)) for _ in range(33)]
    prompts = [prefix + [draw.randrange(3, len(WORDS)) for _ in range(n)] for n in (1, 6, 3)]
    pairs = [(prompt, [draw.randrange(3, len(WORDS)) for _ in range(2)]) for prompt in prompts]
    engine = TransformersEngine(model, PreTrainedTokenizerFast.from_pretrained(folder), "auto")
    found = [answer.response[0] for answer in engine.likelihoods(pairs, ["one"] * 3)()]  # type: ignore[index]
    wanted = [_likelihood(model, *pair) for pair in pairs]
    if max(abs(a - b) for a, b in zip(found, wanted, strict=True)) > _TOLERANCE:
        return f"log-likelihoods{_reason(model, pairs[0][0])}"
    if not engine.can_decode:  # lm-eval's own code lets the model generate
        return ""
    settings = {"until": ["no such word"], "max_gen_toks": _ANSWER, "do_sample": False}
    texts = [" ".join(WORDS[token] for token in prompt) for prompt in prompts]
    stops = Stops(engine.language_model, settings)
    asked = Asked(tuple(texts), ("one",) * 3, settings, stops)
    said = [answer.response for answer in engine.texts(asked)()]
    return "" if said == [_answer(model, prompt) for prompt in prompts] else "greedy answers"


@torch.no_grad()
def _likelihood(model: PreTrainedModel, prompt: list[int], scored: list[int]) -> float:
    logits = model(torch.tensor([prompt + scored]), use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(scored))


@torch.no_grad()
def _reason(model: PreTrainedModel, tokens: list[int]) -> str:
    """Say what else than a token and those before it plain transformers answers by, if so."""
    alone, beside, ahead = (
        model(torch.tensor(rows), use_cache=False).logits[0, : len(tokens)]
        for rows in ([tokens], [tokens, tokens[::-1]], [tokens + tokens[:3]])
    )
    if (alone - beside).abs().max() > _TOLERANCE:
        return ": what else is in a batch counts, in plain transformers, too"
    if (alone - ahead).abs().max() > _TOLERANCE:
        return ": tokens see what comes after them, in plain transformers, too"
    return ""


@torch.no_grad()
def _answer(model: PreTrainedModel, prompt: list[int]) -> str:
    tokens = list(prompt)
    for _ in range(_ANSWER):
        logits = model(torch.tensor([tokens]), use_cache=False).logits
        if (best := int(logits[0, -1].argmax())) == 1:
            break
        tokens.append(best)
    words = [WORDS[token] for token in tokens[len(prompt) :]]
    return " ".join(word for word in words if not word.startswith("<"))
