"""What transformers' models tell is asked once, and again when anything it depends on changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    GPT2Config,
    PreTrainedConfig,
)

from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.step_memory import pass_bytes
from evomerge.evaluation.teacher_forcing import Piece, Reading
from evomerge.models import asked, loading, structure
from evomerge.models.architecture import Architecture
from evomerge.models.asked import asked_once
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.outline import load_tokenizer, model_outline, plain_config
from evomerge.models.structure import empty_model
from tests.tiny import save_tiny_llama

GPT2 = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=77, vocab_size=50)  # own names
GEMMA = Gemma3Config(  # a language model inside
    text_config={
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
        "num_key_value_heads": 1,
        "intermediate_size": 24,
        "max_position_embeddings": 99,
        "vocab_size": 60,
    }
)


@dataclass(frozen=True)
class Answer:
    numbers: tuple[int, ...]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "structures"


class Asking:
    """Counts how often it is asked."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer, self.n = answer, 0

    def __call__(self) -> Answer | None:
        self.n += 1
        return self.answer


def test_the_same_question_is_asked_once() -> None:
    asking = Asking(Answer((1, 2)))
    assert [asked_once(Answer, asking, {"a": 1}) for _ in range(3)] == [Answer((1, 2))] * 3
    assert asking.n == 1


@pytest.mark.parametrize("changed", ["question", "transformers", "code", "off", "development"])
def test_another_question_or_another_version_is_asked_again(
    changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking(Answer((1,)))
    asked_once(Answer, asking, {"a": 1})
    if changed == "transformers":
        monkeypatch.setattr(asked, "version", lambda name: "999.0")
    if changed == "development":
        monkeypatch.setattr(asked, "version", lambda name: "5.0.dev0")
    if changed == "code":
        monkeypatch.setattr(asked, "_code", lambda: "other")
    if changed == "off":
        monkeypatch.setenv("EVOMERGE_CACHE", "off")
    asked_once(Answer, asking, {"a": 2 if changed == "question" else 1})
    assert asking.n == 2


def test_a_damaged_answer_is_asked_again(cache: Path) -> None:
    asking = Asking(Answer((1,)))
    asked_once(Answer, asking)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert asked_once(Answer, asking) == Answer((1,))
    assert asked_once(Answer, asking) == Answer((1,))
    assert asking.n == 2


def test_no_answer_is_not_kept() -> None:
    asking = Asking(None)
    assert asked_once(Answer, asking) is asked_once(Answer, asking) is None
    assert asking.n == 2


def test_what_a_model_tells_of_a_checkpoint_is_known_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_llama(tmp_path / "model", seed=0, tied=True)
    checkpoint = Checkpoint(tmp_path / "model")

    def told() -> tuple[object, ...]:
        loading._read.cache_clear()
        found = Architecture(checkpoint.config, checkpoint.names)
        return vars(found), loading.read_loading(checkpoint.config, checkpoint.names)

    first = told()
    with monkeypatch.context() as patch:
        patch.setattr(structure, "empty_model", lambda *_: pytest.fail("a model was built"))
        assert told() == first
    other = {**checkpoint.config, "num_hidden_layers": 3}
    assert Architecture(other, checkpoint.names).n_layers == 3


@pytest.mark.parametrize("config", [GPT2, GEMMA], ids=lambda c: str(c.model_type))
def test_an_outline_stands_for_the_model(config: PreTrainedConfig) -> None:
    stored = config.to_dict()
    for _ in range(2):  # as it is asked, and as it is kept
        outline, model = model_outline(stored, torch.float32, "eager"), empty_model(stored)
        assert outline is not None
        assert model is not None
        sizes = [parameter.nbytes for parameter in model.parameters()]
        assert [parameter.nbytes for parameter in outline.parameters()] == sizes
        batch = [Piece((Reading((1, 2, 3), (4, 5)),), torch.sum)]
        for checkpointing in (True, False):
            reckoned = pass_bytes(model, batch, checkpointing=checkpointing)
            assert pass_bytes(outline, batch, checkpointing=checkpointing) == reckoned
    itself = model_outline(stored, torch.float32)
    assert itself is not None
    loaded = AutoModelForCausalLM.from_config(config).config
    assert itself.config._attn_implementation == loaded._attn_implementation


def test_prompts_are_as_long_as_a_live_model_lets_them_be(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = save_tiny_llama(folder, seed=0)
    live = LanguageModel(model, AutoTokenizer.from_pretrained(folder), 1)
    for config in (AutoConfig.from_pretrained(folder), GPT2, GEMMA):
        plain = plain_config(config.to_dict())
        model.config = config  # type: ignore[assignment]
        reader = LanguageModel.without_parameters(load_tokenizer(folder), plain)
        assert reader.lm.max_length == live.lm.max_length
    assert reader.lm.max_length == 99


@pytest.mark.parametrize("ends", [None, 2, [2, 5]])
def test_answers_end_where_those_of_a_live_model_end(tmp_path: Path, ends: object) -> None:
    folder = tmp_path / "model"
    model = save_tiny_llama(folder, seed=0)
    model.config.eos_token_id = model.generation_config.eos_token_id = ends
    live = LanguageModel(model, AutoTokenizer.from_pretrained(folder), 1)
    plain = plain_config(model.config.to_dict())
    reader = LanguageModel.without_parameters(load_tokenizer(folder), plain)
    assert reader.ends({}) == live.ends({})


def test_the_tokenizer_is_the_one_of_transformers(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, seed=0)
    wanted = AutoTokenizer.from_pretrained(tmp_path)
    for _ in range(2):
        found = load_tokenizer(tmp_path)
        assert type(found) is type(wanted)
        assert found.get_vocab() == wanted.get_vocab()
        assert found("w1 w2 nothing").input_ids == wanted("w1 w2 nothing").input_ids
