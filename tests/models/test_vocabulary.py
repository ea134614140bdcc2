"""Tokens and their ids as a model's files have them."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch

from evomerge.errors import CheckpointError
from evomerge.merging.sources import Sources
from evomerge.models.outline import load_tokenizer
from evomerge.models.vocabulary import tokens_of

Family = dict[str, Path]


def swapped(folder: Path, out: Path, one: str, other: str) -> Path:
    """Copy a model whose tokenizer knows two tokens by each other's ids."""
    copytree(folder, out)
    file = out / "tokenizer.json"
    content = json.loads(file.read_text())
    ids = content["model"]["vocab"]
    ids[one], ids[other] = ids[other], ids[one]
    file.write_text(json.dumps(content))
    return out


def test_unigram_vocabularies_are_numbered_by_place(tmp_path: Path) -> None:
    vocabulary = [[token, -1.0] for token in ("a", "b", "c")]
    content = {"model": {"type": "Unigram", "vocab": vocabulary}}
    content["added_tokens"] = [{"content": "<x>", "id": 7}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert tokens_of(tmp_path) == {"a": 0, "b": 1, "c": 2, "<x>": 7}
    assert tokens_of(tmp_path / "none") == {}


def test_an_expert_with_moved_tokens_is_read_by_token(tiny_family: Family, tmp_path: Path) -> None:
    moved = swapped(tiny_family["one"], tmp_path / "moved", "w1", "w2")
    sources = Sources(str(tiny_family["base"]), {"one": str(tiny_family["one"]), "two": str(moved)})
    plain, swap = sources.tensors("lm_head.weight")[1]
    assert torch.equal(swap[[5, 4]], plain[[4, 5]].float())
    assert torch.equal(swap[6:], plain[6:].float())


def test_every_model_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        Sources(str(tmp_path / "a"), {"one": str(tmp_path / "b"), "two": str(tmp_path / "c")})
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["base", "experts.one", "experts.two"]


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"vocab": [{}]}},
        {"model": {"vocab": 3}},
        {"model": {"vocab": [[[]]]}},
        {"model": {"vocab": {}}, "added_tokens": [{"id": 1}]},
        {"model": {"vocab": {}}, "added_tokens": [3]},
        {"model": {"vocab": {"a": 2**32 - 1}}},
        {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {"a": 2**31}}, "added_tokens": [{"content": "a", "id": 2}]},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "<x>", "id": 2**40}]},
    ],
)
def test_a_damaged_vocabulary_is_named(content: object, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"expected tokens with their ids, .* in .*r\.json"):
        tokens_of(tmp_path)
    with pytest.raises(CheckpointError, match=r"expected .* to have a tokenizer: expected tokens"):
        load_tokenizer(tmp_path)
