"""Text tasks are scored by the whole model of vision and language as by its language model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from evomerge.evaluation.transformers_engine import TransformersEngine
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import WORDS
from tests.vision_language import text_model, vlm

from .test_prefix import asked


@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl"])
def test_a_tower_scores_what_the_text_model_in_it_does(family: str, tmp_path: Path) -> None:
    """Positions of three kinds are one for text; prompts share their first 34 tokens."""
    vlm(tmp_path / "base", family, 0)
    text = text_model(tmp_path / "text", family, 1)
    rule = Rule("linear", {"coefficient": 1.0})
    recipe = Recipe({"t": str(tmp_path / "text")}, (rule,), base=str(tmp_path / "base"))
    candidate = LiveCandidate(Sources.of(recipe))
    candidate.materialise(recipe)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "text")
    whole, alone = (TransformersEngine(m, tokenizer, "auto") for m in (candidate.model, text))
    draw = random.Random(0)
    shared = [draw.randrange(3, len(WORDS)) for _ in range(34)]
    contexts = [[*shared, *(draw.randrange(3, len(WORDS)) for _ in range(i))] for i in range(1, 7)]
    pairs = [(context, [draw.randrange(3, len(WORDS))]) for context in contexts]
    scores = [e.likelihoods(pairs, ["t"] * 6)() for e in (whole, alone)]
    assert [a.response[0] for a in scores[0]] == pytest.approx(
        [a.response[0] for a in scores[1]], rel=1e-5
    )
    texts = [" ".join(WORDS[token] for token in context) for context in contexts]
    answers = [e.texts(asked(e, texts, ["t"] * 6))() for e in (whole, alone)]
    assert [a.response for a in answers[0]] == [a.response for a in answers[1]]
    assert whole.can_decode
    # What the model's own ``generate`` keeps of four prompts moves no tokens of six others.
    whole.language_model.own_answers(texts[:4], {"max_gen_toks": 2, "do_sample": False})
    again = whole.likelihoods(pairs, ["t"] * 6)()
    assert [a.response for a in again] == [a.response for a in scores[0]]
