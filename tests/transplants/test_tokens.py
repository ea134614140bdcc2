"""Tokens of different kinds of tokenizers: the same where they spell the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from evomerge.transplants.tokens import match_tokens, spelt_vocabulary

TEXTS = ["a", " a", "\n", "é", "<s>", "\t", "~", "😀", " ½"]


def byte_level() -> tuple[Any, list[str]]:
    """GPT-2's spelling: names from the library's own pre-tokenizer."""
    step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = [step.pre_tokenize_str(text)[0][0] for text in TEXTS]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, names


def sentence_piece() -> tuple[Any, list[str]]:
    """Llama's spelling, with bytes for what has no token of its own."""
    names = [text.replace(" ", "▁") for text in TEXTS]
    names[TEXTS.index("\n")], names[TEXTS.index("~")] = "<0x0A>", "<0x7E>"
    vocabulary = {name: i for i, name in enumerate(reversed(names))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer, names


def metaspace() -> tuple[Any, list[str]]:
    names = [text.replace(" ", "▁") for text in TEXTS]
    tokenizer = Tokenizer(models.Unigram([(name, -1.0) for name in names]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never", split=False)
    return tokenizer, names


KINDS = {kind.__name__: kind for kind in (byte_level, sentence_piece, metaspace)}


def save(folder: Path, kind: str) -> dict[str, int]:
    """Write a tokenizer; tell the ids by text."""
    tokenizer, names = KINDS[kind]()
    ids = {t: tokenizer.token_to_id(n) for t, n in zip(TEXTS, names, strict=True)}
    assert {text: tokenizer.decode([row]) for text, row in ids.items()} == {t: t for t in TEXTS}
    tokenizer.add_tokens([AddedToken("<s>" if kind != "metaspace" else "<bos>", special=True)])
    tokenizer.add_tokens([AddedToken(f"<{kind}>", special=True)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return ids


@pytest.mark.parametrize(("donor", "model"), [(a, b) for a in KINDS for b in KINDS])
def test_tokens_match_by_what_they_spell(donor: str, model: str, tmp_path: Path) -> None:
    ours, theirs = save(tmp_path / "model", model), save(tmp_path / "donor", donor)
    spelt = [spelt_vocabulary(tmp_path / name, 20) for name in ("donor", "model")]
    found = dict(match_tokens(*spelt).shared.T.tolist())
    expected: dict[int, int | None] = {theirs[text]: ours[text] for text in TEXTS}
    if (donor == "metaspace") != (model == "metaspace"):  # special in one, text in the other
        expected[theirs["<s>"]] = None
    assert {row: found.get(row) for row in expected} == expected
    missing = match_tokens(*spelt).missing.tolist()
    assert (spelt[0].tokens[f"<{donor}>"] in missing) == (donor != model)
