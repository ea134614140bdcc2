"""A tiny random Llama with a real word-level tokenizer, and one lm-eval task of every kind."""

from __future__ import annotations

import os
from pathlib import Path

# Before any test imports `datasets`, which reads them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.evaluation import Suite

from .tiny_tasks import GROUP, NAMED, TASKS, WORDS, write_data, write_task

CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = ["<unk>", "<s>", "</s>", "<pad>", "<system>", "<user>", "<assistant>", *WORDS]
    words = models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
    backend = Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=CHAT,
    )


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        initializer_range=0.6,  # large, so that random models differ in their answers
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def empty_folder(tmp_path: Path) -> Path:
    """Data, but no task yet."""
    write_data(tmp_path)
    return tmp_path


@pytest.fixture
def folder(empty_folder: Path) -> Path:
    """All of TASKS and a group, over data files of three splits."""
    for name in TASKS:
        write_task(empty_folder, name)
    (empty_folder / "tiny_group.yaml").write_text(yaml.safe_dump(GROUP))
    return empty_folder


@pytest.fixture
def suite(folder: Path) -> Suite:
    names = ("tiny_generate", "tiny_filters", "tiny_group", "tiny_likelihood", "tiny_rolling")
    return Suite("tiny", names, include_path=folder, splits=NAMED, batch_size=8)
