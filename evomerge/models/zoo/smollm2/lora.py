"""LoRA adapters trained in plain torch: a frozen bfloat16 model, float32 factors, saved as PEFT's.

Learns answers only (the prompt carries no loss), and works out the logits of answers alone: the
head is a fifth of a small model.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from evomerge.models.zoo.answers import answer_loss, padded
from evomerge.models.zoo.smollm2.items import Exercise

__all__ = [
    "ALPHA",
    "RANK",
    "TARGETS",
    "Course",
    "add_adapter",
    "save_adapter",
    "train_adapter",
]

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # PEFT's names
_WARM_UP = 10  # steps


@dataclass(frozen=True)
class Course:
    """What one adapter is trained on.

    Attributes:
        draw: Gives the next item.
        steps: Number of optimizer steps.
        lr: Peak learning rate; the cosine ends at a tenth of it.
        batch_size: Items per step.
        n_layers: How many layers, from the first one on, have factors; ``None``: all.
    """

    draw: Callable[[random.Random], Exercise]
    steps: int
    lr: float = 1e-3
    batch_size: int = 8
    n_layers: int | None = None


class _LowRank(nn.Module):
    """A frozen linear layer plus ``ALPHA / RANK · B A``, float32 factors of bfloat16 products."""

    def __init__(self, frozen: nn.Linear, generator: torch.Generator) -> None:
        super().__init__()
        self.frozen = frozen
        bound = 1 / math.sqrt(frozen.in_features)
        a = torch.empty(RANK, frozen.in_features).uniform_(-bound, bound, generator=generator)
        self.a, self.b = nn.Parameter(a), nn.Parameter(torch.zeros(frozen.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = functional.linear(x, self.a.to(x.dtype)) * (ALPHA / RANK)
        return self.frozen(x) + functional.linear(low, self.b.to(x.dtype))  # type: ignore[no-any-return]


def train_adapter(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    course: Course,
    *,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Train factors on ``model``, which is left as it was (AdamW, warm-up, cosine to a tenth).

    Args:
        model: bfloat16; its parameters are frozen while training lasts.
        tokenizer: Its tokenizer.
        course: What to draw, how long, how fast.
        seed: Decides initial factors and the items drawn.
        on_step: Called after each step with its number (from 1) and the loss.

    Returns:
        Factors under PEFT's names, bfloat16.
    """
    model.requires_grad_(False)
    n_layers = course.n_layers or model.config.num_hidden_layers
    layers = dict(_wrapped(model, n_layers, torch.Generator().manual_seed(seed)))
    trained = [factor for layer in layers.values() for factor in (layer.a, layer.b)]
    optimizer = torch.optim.AdamW(trained, lr=course.lr, betas=(0.9, 0.95), weight_decay=0.01)
    rng = random.Random(seed)
    for step in range(course.steps):
        optimizer.param_groups[0]["lr"] = course.lr * _schedule(step, course.steps)
        items = [course.draw(rng) for _ in range(course.batch_size)]
        loss = answer_loss(model, *_encode(items, tokenizer))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, loss.item())
    for name, layer in layers.items():
        model.set_submodule(name, layer.frozen)
    return dict(_factors(layers))


def save_adapter(factors: dict[str, torch.Tensor], out: Path, *, base: str) -> None:
    """Write a PEFT folder; its config names the layers that have factors.

    Args:
        factors: As ``train_adapter`` returns them.
        out: Folder; created if missing, files in it are overwritten.
        base: Name of the model that the adapter belongs on.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_file(factors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "layers_to_transform": sorted(
            {int(name.split(".layers.")[1].split(".")[0]) for name in factors}
        ),
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": list(TARGETS),
        "task_type": "CAUSAL_LM",
    }
    text = json.dumps(config, indent=2) + "\n"
    (out / "adapter_config.json").write_text(text, encoding="utf-8")


def add_adapter(model: LlamaForCausalLM, factors: dict[str, torch.Tensor]) -> None:
    """Add factors to the model they were trained on, in place: W + ALPHA / RANK · B A.

    Args:
        model: bfloat16; each tensor is rounded once.
        factors: As ``train_adapter`` returns them.
    """
    for name in (name for name in factors if name.endswith(_A)):
        a, b = (factors[name.replace(_A, side)].float() for side in (_A, _B))
        weight = model.get_parameter(f"{name.removeprefix(_PREFIX).removesuffix(_A)}.weight")
        weight.data.copy_(weight.float() + ALPHA / RANK * (b @ a))


def _wrapped(
    model: LlamaForCausalLM, n_layers: int, generator: torch.Generator
) -> Iterator[tuple[str, _LowRank]]:
    layers = tuple(f"model.layers.{layer}." for layer in range(n_layers))
    found = [n for n, _ in model.named_modules() if n.rpartition(".")[2] in TARGETS]
    found = [name for name in found if name.startswith(layers)]
    for name in found:
        frozen = model.get_submodule(name)
        assert isinstance(frozen, nn.Linear)
        layer = _LowRank(frozen, generator)
        model.set_submodule(name, layer)
        yield name, layer


def _factors(layers: dict[str, _LowRank]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, layer in layers.items():
        for side, factor in ((_A, layer.a), (_B, layer.b)):
            yield f"{_PREFIX}{name}{side}", factor.detach().bfloat16()


def _schedule(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / _WARM_UP)
    return warm_up * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def _encode(
    items: Sequence[Exercise], tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    prompts = [tokenizer(item.prompt)["input_ids"] for item in items]
    answers = [tokenizer(f" {item.answer}\n")["input_ids"] for item in items]
    return padded(prompts, answers, pad=0)
