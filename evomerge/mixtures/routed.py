"""Where the experts and routers of a mixture are in its files, one by one or fused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from evomerge.errors import CheckpointError
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.outline import plain_config
from evomerge.models.units import ModelUnits, neurons
from evomerge.observation.routers import n_routed

__all__ = ["ROUTED_FAMILIES", "RoutedExperts", "RoutedTensor"]

ROUTED_FAMILIES = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe")
"""Types of models whose router is one matrix, and sends a token where its rows score highest."""
_COUNTS = ("num_local_experts", "num_experts")  # configs of one type may have either name
_AT = r"(?P<at>.*\.(mlp|block_sparse_moe)\.)"
_PART = r"(?P<part>\w+?)(\.weight)?"
_EXPERTS = re.compile(rf"{_AT}experts\.((?P<expert>\d+)\.)?{_PART}")
_ROUTER = re.compile(rf"{_AT}gate\.weight")
# The axes of each part of an expert; neurons are its only units that may change places.
_AXES: Mapping[str, tuple[str | None, ...]] = {
    **dict.fromkeys(("w1", "w3", "gate_proj", "up_proj"), ("hidden", None)),
    **dict.fromkeys(("w2", "down_proj"), (None, "hidden")),
    "gate_up_proj": ("gate_up", None),
}


@dataclass(frozen=True)
class RoutedTensor:
    """A stored tensor of routers or experts.

    Attributes:
        name: In the files.
        at: Which mixture it is of: what the names of all its tensors begin with.
        part: Of an expert, e.g. ``down_proj``; ``None``: the router.
        expert: Of which; ``None``: of all, along the first dimension.
    """

    name: str
    at: str
    part: str | None = None
    expert: int | None = None

    def of(self, expert: int) -> RoutedTensor:
        """Name the same part of another expert."""
        head = f"{self.at}experts."
        tail = self.name.removeprefix(f"{head}{self.expert}.")
        return replace(self, name=f"{head}{expert}.{tail}", expert=expert)


class RoutedExperts:
    """The experts of a mixture; headers are read only.

    Args:
        checkpoint: The mixture.

    Attributes:
        checkpoint: As given.
        n: Experts in each layer that has some.
        n_taken: How many of them a token is sent to.
        is_normed: Whether the weights of those add up to 1.

    Raises:
        CheckpointError: It is none of a family that is known.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, config = checkpoint, plain_config(checkpoint.config)
        model_type = checkpoint.config.get("model_type")
        if model_type not in ROUTED_FAMILIES or config is None or not self.layers:
            raise CheckpointError(
                f"expected a mixture of experts of type {', '.join(ROUTED_FAMILIES)}, got "
                f"{model_type} in {checkpoint.folder}"
            )
        self.n, self.n_taken = n_routed(config), int(config.num_experts_per_tok)
        self.is_normed = bool(getattr(config, "norm_topk_prob", True))  # Mixtral has no such key

    @cached_property
    def tensors(self) -> Mapping[str, RoutedTensor]:
        """Every tensor of routers and experts, by name."""
        found = {}
        for name in self.checkpoint.names:
            if match := _ROUTER.fullmatch(name):
                found[name] = RoutedTensor(name, match["at"])
            elif (match := _EXPERTS.fullmatch(name)) and match["part"] in _AXES:
                own = match["expert"]
                expert = None if own is None else int(own)
                found[name] = RoutedTensor(name, match["at"], match["part"], expert)
        return found

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """What the tensors of each mixture begin with, in the model's order."""
        with_experts = {tensor.at for tensor in self.tensors.values() if tensor.part is not None}
        return tuple(sorted(with_experts, key=_in_order))

    def parts(self, layer: str, expert: int) -> Mapping[str, torch.Tensor]:
        """Map one expert into memory, matrix by matrix."""
        read, found = self.checkpoint.tensor, {}
        for part, tensor in self._parts(layer).items():
            is_fused = tensor.expert is None
            found[part] = read(tensor.name)[expert] if is_fused else read(tensor.of(expert).name)
        return found

    def units(self, layer: str) -> ModelUnits:
        """Describe the neurons of any expert of a layer, by its parts."""
        axes = {part: _AXES[part] for part in self._parts(layer)}
        shapes = {part: tensor.shape for part, tensor in self.parts(layer, 0).items()}
        sizes = {
            axis: size
            for part, own in axes.items()
            for axis, size in zip(own, shapes[part], strict=True)
            if axis is not None
        }
        return ModelUnits(axes, sizes, tuple(neurons(sizes)))

    def config(self, n: int) -> dict[str, Any]:
        """Write the config of a mixture with another number of experts."""
        own = self.checkpoint.config
        named = [key for key in _COUNTS if key in own] or [_COUNTS[own["model_type"] != "mixtral"]]
        return {**own, **dict.fromkeys(named, n)}

    def _parts(self, layer: str) -> Mapping[str, RoutedTensor]:
        """List one stored tensor for each part of an expert."""
        return self._by_part[layer]

    @cached_property
    def _by_part(self) -> Mapping[str, Mapping[str, RoutedTensor]]:
        found: dict[str, dict[str, RoutedTensor]] = {layer: {} for layer in self.layers}
        for tensor in self.tensors.values():
            if tensor.part is not None:
                found[tensor.at][tensor.part] = tensor
        return found


def _in_order(layer: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", layer)))
