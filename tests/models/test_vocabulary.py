"""Models whose embeddings mean other tokens are found by their tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest

from evomerge.errors import CheckpointError
from evomerge.merging.sources import Sources
from evomerge.models.vocabulary import moved_tokens, tokens_of

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


def test_moved_tokens_are_found_with_both_ids(tiny_family: Family, tmp_path: Path) -> None:
    moved = swapped(tiny_family["one"], tmp_path / "moved", "w1", "w2")
    assert moved_tokens(tiny_family["base"], moved) == {"w1": (4, 5), "w2": (5, 4)}


def test_added_tokens_may_move(tiny_family: Family, tmp_path: Path) -> None:
    moved = swapped(tiny_family["one"], tmp_path / "moved", "<pad>", "<eos>")
    assert moved_tokens(tiny_family["base"], moved) == {}


def test_unigram_vocabularies_are_compared_by_place(tmp_path: Path) -> None:
    for name, tokens in (("one", ["a", "b", "c"]), ("other", ["a", "c"])):
        (tmp_path / name).mkdir()
        vocabulary = [[token, -1.0] for token in tokens]
        content = json.dumps({"model": {"type": "Unigram", "vocab": vocabulary}})
        (tmp_path / name / "tokenizer.json").write_text(content)
    assert moved_tokens(tmp_path / "one", tmp_path / "other") == {"c": (2, 1)}
    assert moved_tokens(tmp_path / "one", tmp_path / "none") == {}


def test_an_expert_with_moved_tokens_is_refused(tiny_family: Family, tmp_path: Path) -> None:
    moved = swapped(tiny_family["one"], tmp_path / "moved", "w1", "w2")
    expected = r"experts\.one: expected the token ids of .* e.g. 'w1' is 5 instead of 4"
    with pytest.raises(CheckpointError, match=expected):
        Sources(str(tiny_family["base"]), {"one": str(moved)})


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
    ],
)
def test_a_damaged_vocabulary_is_named(
    content: object, tiny_family: Family, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    for read in (lambda: tokens_of(tmp_path), lambda: moved_tokens(tiny_family["base"], tmp_path)):
        with pytest.raises(CheckpointError, match=r"expected tokens with their ids in .*r\.json"):
            read()
