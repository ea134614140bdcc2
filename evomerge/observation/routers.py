"""Which experts of a mixture tokens are sent to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from evomerge.observation.observer import Observer

__all__ = ["ROUTERS", "n_routed", "router_usage"]

ROUTERS = "routers"
"""What the counts are called: they are of all layers together."""


def n_routed(config: Any) -> int:
    """Tell how many experts a mixture has; 0: it is none whose routers transformers shows."""
    text = config.get_text_config()
    for name in ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"):
        if isinstance(found := getattr(text, name, None), int):
            return found
    return 0


def router_usage(observer: Observer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Count the tokens that each layer's router sends to each expert.

    A token goes to the experts with the highest scores, as many as the config says.

    Args:
        observer: Model and examples.
        names: ``ROUTERS``.

    Returns:
        (layers with a router, experts) by name, in float32 or more digits, on the CPU.
    """
    taken = observer.model.config.get_text_config().num_experts_per_tok
    counts: list[torch.Tensor] = []
    for output in observer.read_forward(output_router_logits=True):
        scores: tuple[torch.Tensor, ...] = output.router_logits  # type: ignore[attr-defined]
        counts.append(torch.stack([_counted(own, taken) for own in scores]))
    total = torch.stack(counts).sum(0).to(observer.accumulated).cpu()
    return dict.fromkeys(names, total)


def _counted(scores: torch.Tensor, taken: int) -> torch.Tensor:
    chosen = scores.topk(taken, dim=-1).indices.flatten()
    return chosen.bincount(minlength=scores.shape[-1])
