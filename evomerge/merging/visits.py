"""One visit of a path to a layer: the layer again, at another position and on a scaled stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from evomerge.models.branches import Branches
from evomerge.models.twins import twin

__all__ = ["Visit"]


class Visit:
    """A twin of a layer with its own position, by which caches are kept, and its own scale.

    Scales act as they do in the written checkpoint (see ``models.branches``): the stream stays
    divided by their product, so that both compute the same function. It is that of a scaled stream
    except for the norms' epsilon, which is not scaled here.

    Args:
        layer: Shares its parameters; stays as it is.
        numbered: Modules of the layer that know its position.
        branches: How its family reads and writes the stream; ``None``: it has no scales.
    """

    def __init__(
        self, layer: nn.Module, numbered: Sequence[str], branches: Branches | None
    ) -> None:
        ends = (*branches.outputs, *branches.inputs) if branches else ()
        self._layer = twin(layer, (*numbered, *ends))
        self._numbered = [vars(self._layer.get_submodule(path)) for path in numbered]
        self._scale = _StreamScale()
        if branches:
            self._scale.act_on(self._layer, branches)

    def scale_leaf(self) -> torch.Tensor:
        """Make the scale a tensor that torch differentiates along, until the next move."""
        self._scale.value = torch.tensor(float(self._scale.value), requires_grad=True)
        return self._scale.value

    def at(self, position: int, scale: float) -> nn.Module:
        """Move it; what was returned before moves, too.

        Args:
            position: In the path, from 0.
            scale: Product of the path's scales up to here; 1 if the family has none.
        """
        for attributes in self._numbered:
            attributes["layer_idx"] = position
        self._scale.value = scale
        return self._layer


class _StreamScale:
    """The factor that a layer's stream is divided by; 1 changes no number.

    Attributes:
        value: A number, or a 0-dimensional tensor on any device, which calculates like one.
    """

    def __init__(self) -> None:
        self.value: float | torch.Tensor = 1.0

    @property
    def _is_idle(self) -> bool:
        return not isinstance(self.value, torch.Tensor) and self.value == 1

    def act_on(self, layer: nn.Module, branches: Branches) -> None:
        for path in branches.outputs:
            layer.get_submodule(path).register_forward_hook(self._divide_result)
        for path in branches.inputs:
            module = layer.get_submodule(path)
            module.register_forward_pre_hook(self._multiply_input, with_kwargs=True)

    def _divide_result(
        self, module: nn.Module, args: object, result: torch.Tensor
    ) -> torch.Tensor | None:
        return None if self._is_idle else result * (1 / self.value)

    def _multiply_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._is_idle:
            return None
        if args:
            return (args[0] * self.value, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * self.value}
