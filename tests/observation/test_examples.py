"""Prompts from files and suites, and their tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import CheckpointError, ConfigError
from evomerge.evaluation.teacher_forcing import Reading
from evomerge.models.checkpoint import Checkpoint
from evomerge.observation.examples import Example, examples_text, read_examples
from evomerge.observation.reading import tokenised
from tests.tiny import save_tiny_llama


def test_examples_are_written_and_read_again(tmp_path: Path) -> None:
    examples = (Example("w1 w2", " w3"), Example("w4\nw5"), Example("é", " w6", "math"))
    file = tmp_path / "prompts.jsonl"
    file.write_text(examples_text(examples), encoding="utf-8")
    assert read_examples(file, 10) == examples
    assert read_examples(file, 2) == examples[:2]


def test_any_text_is_one_example_for_each_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("w1 w2\n\n  \nw3\n")
    assert read_examples(file, 10) == (Example("w1 w2"), Example("w3"))


def test_every_line_that_is_no_example_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": 1}\nno\n{"prompt": "a", "label": "b"}\n')
    with pytest.raises(ConfigError) as caught:
        read_examples(file, 10)
    assert [f"line {n}" in str(f) for n, f in zip((2, 3, 4), caught.value.faults, strict=True)]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_prompts_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(content)
    with pytest.raises(ConfigError, match="at least one prompt"):
        read_examples(file, 10)
    with pytest.raises(ConfigError, match=r"absent\.txt"):
        read_examples(tmp_path / "absent.txt", 10)


def test_answers_follow_prompts_and_texts_answer_themselves(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, seed=0)
    found = tokenised((Example("w1 w2", " w3"), Example("w4 w5")), Checkpoint(tmp_path))
    assert found.readings[0] == Reading((4, 5), (6,))
    context, continuation = found.readings[1].context, found.readings[1].continuation
    assert (context + continuation)[-2:] == (7, 8)


def test_a_model_that_cannot_be_run_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, seed=0)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        tokenised((Example("w1"),), Checkpoint(tmp_path))
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"unheard_of"'))
    with pytest.raises(CheckpointError, match="unheard_of"):
        tokenised((Example("w1"),), Checkpoint(tmp_path))
