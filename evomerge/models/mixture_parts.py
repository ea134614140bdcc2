"""Routers, routed and shared experts, told by the modules of a mixture."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from evomerge.models.roles import MixtureRole

__all__ = ["MixtureParts"]

_ROUTER = re.compile(r"router|(^|_)gate$")
_BALANCE = re.compile(r"moe_statics")


class MixtureParts:
    """Tells what a module of a layer is in a mixture of experts.

    A mixture is the module that holds experts, in a list or fused to one; a few layers hold them
    themselves, beside their router.

    Args:
        modules: Of the whole model, by path.
        layers: Path of the list of decoder layers.
    """

    def __init__(self, modules: Mapping[str, nn.Module], layers: str) -> None:
        self._depth = layers.count(".") + 2  # components of a layer's own path
        inside = {path: m for path, m in modules.items() if path.startswith(f"{layers}.")}
        self._experts = {path for path, module in inside.items() if _is_experts(path, module)}
        self._mixtures = {path.rpartition(".")[0] for path in self._experts}
        self._layers = {self._layer(path) for path in self._experts}

    def part(self, path: str) -> MixtureRole | None:
        """Say what a module, or what it holds itself, is.

        Args:
            path: Of a module of a layer.

        Returns:
            ``None`` for all that is of no mixture.
        """
        if self._layer(path) not in self._layers:
            return None
        parts = path.split(".")
        around = {".".join(parts[:end]) for end in range(self._depth + 1, len(parts) + 1)}
        names, in_mixture = parts[self._depth :], bool(around & self._mixtures)
        if any("router" in n or (in_mixture and _ROUTER.search(n)) for n in names):
            return "router"
        if any(name.startswith("shared_") for name in names):
            return "shared_experts"
        if around & self._experts:
            return "routed_experts"
        is_balance = path in self._mixtures or any(map(_BALANCE.search, names))
        return "router" if in_mixture and is_balance else None

    def _layer(self, path: str) -> str:
        return ".".join(path.split(".")[: self._depth])


def _is_experts(path: str, module: nn.Module) -> bool:
    is_list = isinstance(module, nn.ModuleList) and path.endswith(".experts")
    return is_list or "Experts" in type(module).__name__
