"""Random paths, and what a model answers: run as a program, in plain transformers alone.

    python paths.py FOLDER...

writes each folder's answers into it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

N_WORDS, PROMPT, ANSWER = 32, 11, 8  # longer than the sliding windows of tiny models
FILE = "answers.pt"


def answers(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, PROMPT, words) and greedy continuations (2, PROMPT + ANSWER) of two prompts."""
    prompts = torch.randint(3, N_WORDS, (2, PROMPT), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(prompts)
    with torch.no_grad():
        logits = model(prompts, attention_mask=mask).logits
        tokens = model.generate(
            prompts, attention_mask=mask, max_new_tokens=ANSWER, min_new_tokens=ANSWER,
            do_sample=False, use_cache=True,
        )  # fmt: skip
    return logits, tokens


if __name__ == "__main__":
    torch.set_num_threads(1)
    for folder in map(Path, sys.argv[1:]):
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        torch.save(answers(loaded), folder / FILE)
