"""The zoo's training loop: plain torch, seeded, on the processor.

Learns answers only (the prompt carries no loss). Parameters end up as bfloat16 values, so that what
is trained further, scored and saved is one and the same model.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge.models.zoo.answers import answer_loss, padded
from evomerge.models.zoo.curriculum import N_LAYERS, Phase
from evomerge.models.zoo.skills import Question

__all__ = ["new_model", "round_to_bfloat16", "train"]

_INITIAL_STD = 0.07  # larger than usual: at this size it halves the steps the base needs


def new_model(vocab_size: int, *, seed: int) -> LlamaForCausalLM:
    """Create the untrained base: six layers of 96, about 0.7 million parameters, float32."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
        initializer_range=_INITIAL_STD,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    ids: dict[str, int],
    phase: Phase,
    *,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train ``model`` in place through one phase (AdamW, warm-up, cosine decay to a tenth).

    Args:
        model: float32; ends with values that bfloat16 holds exactly.
        ids: Token id of every word.
        phase: What to draw, how long, how fast, which parameters.
        seed: Decides the questions drawn.
        on_step: Called after each step with its number (from 1) and the loss.
    """
    rng = random.Random(seed)
    trained = [p for name, p in model.named_parameters() if phase.trains(name)]
    optimizer = torch.optim.AdamW(trained, lr=phase.lr, betas=(0.9, 0.95), weight_decay=0.05)
    for step in range(phase.steps):
        optimizer.param_groups[0]["lr"] = phase.lr * _schedule(step, phase.steps)
        questions = [phase.draw(rng) for _ in range(phase.batch_size)]
        loss = answer_loss(model, *_encode(questions, ids))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, loss.item())
    round_to_bfloat16(model)


def round_to_bfloat16(model: LlamaForCausalLM) -> None:
    """Round every parameter to the nearest bfloat16 value, in place; the dtype stays float32."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())


def _schedule(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / 20)
    return warm_up * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def _encode(
    questions: Sequence[Question], ids: dict[str, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    prompts = [[ids[word] for word in question.prompt.split()] for question in questions]
    answers = [
        [ids[word] for word in question.answer.split()] + [ids["<eos>"]] for question in questions
    ]
    return padded(prompts, answers, ids["<pad>"])
