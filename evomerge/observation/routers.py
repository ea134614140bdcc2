"""Which experts of a mixture tokens are sent to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evomerge.observation.observer import Observer

__all__ = ["ROUTERS", "Routing", "n_routed", "router_usage", "routing"]

ROUTERS = "routers"
"""What the counts are called: they are of all layers together."""


_TINY = torch.finfo(torch.float32).tiny  # instead of a division by 0


def n_routed(config: Any) -> int:
    """Tell how many experts a mixture has; 0: it is none whose routers transformers shows."""
    text = config.get_text_config()
    for name in ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"):
        if isinstance(found := getattr(text, name, None), int):
            return found
    return 0


@dataclass(frozen=True, eq=False)
class Routing:
    """What routers make of prompts; both in float32 or more digits, on the CPU.

    Attributes:
        usage: (layers with a router, experts): tokens sent to each expert. A token goes to the
            experts with the highest scores, as many as the config says.
        gram: (layers, experts, experts): sums over tokens of products of scores, which are logits.
    """

    usage: torch.Tensor
    gram: torch.Tensor

    @property
    def likeness(self) -> torch.Tensor:
        """Cosine of the scores that two experts get: (layers, experts, experts); 0 of zeros."""
        lengths = self.gram.diagonal(dim1=1, dim2=2).sqrt()
        return self.gram / (lengths[:, :, None] * lengths[:, None]).clamp(min=_TINY)


def routing(observer: Observer) -> Routing:
    """Watch the routers of a mixture while it reads the examples."""
    taken, dtype = observer.model.config.get_text_config().num_experts_per_tok, observer.accumulated
    counts, grams = [], []
    for output in observer.read_forward(output_router_logits=True):
        scores: tuple[torch.Tensor, ...] = output.router_logits  # type: ignore[attr-defined]
        counts.append(torch.stack([_counted(own, taken) for own in scores]))
        grams.append(torch.stack([own.to(dtype).T @ own.to(dtype) for own in scores]))
    return Routing(*(torch.stack(found).sum(0).to(dtype).cpu() for found in (counts, grams)))


def router_usage(observer: Observer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Count the tokens that each layer's router sends to each expert; see ``Routing``.

    Args:
        observer: Model and examples.
        names: ``ROUTERS``.

    Returns:
        (layers with a router, experts) by name.
    """
    return dict.fromkeys(names, routing(observer).usage)


def _counted(scores: torch.Tensor, taken: int) -> torch.Tensor:
    chosen = scores.topk(taken, dim=-1).indices.flatten()
    return chosen.bincount(minlength=scores.shape[-1])
