"""Units compared by what they answer: correlations over all tokens of some prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from evomerge.alignment.matching import Likeness, Orders, most_alike
from evomerge.arrays import FloatArray
from evomerge.models.units import ModelUnits, UnitGroup
from evomerge.observation.observer import Observer

__all__ = ["activation_likeness", "correlations", "reading_matrices", "unordered_likeness"]

_BLOCK_BYTES = 2**31  # of sums that are gathered in one pass over the prompts


def reading_matrices(units: ModelUnits) -> Mapping[str, str]:
    """Name the matrix whose inputs are what the units of an axis answer, by axis."""
    return {
        str(axes[1]): name
        for name, axes in units.axes.items()
        if len(axes) > 1 and str(axes[1]).endswith((".hidden", ".o"))
    }


def activation_likeness(found: Mapping[str, FloatArray]) -> Likeness:
    """Compare units by the correlations of what they answer.

    Args:
        found: (positions, positions) by axis, of the base's with the expert's.

    Source:
        Li et al. 2016, arXiv:1511.07543; Ainsworth et al. 2023, arXiv:2209.04836, section 3.1.
    """

    def likeness(group: UnitGroup, orders: Orders) -> FloatArray:
        total = np.zeros((group.n, group.n))
        for axis, members in group.members.items():
            if axis in found:
                for own in members.T:
                    total += found[axis][np.ix_(own, orders[axis][own])]
        return total

    return likeness


def unordered_likeness(found: Mapping[str, FloatArray]) -> Likeness:
    """Compare units whatever the order of what is in them, which is not known at first.

    Args:
        found: See ``activation_likeness``.
    """
    in_order = activation_likeness(found)

    def likeness(group: UnitGroup, orders: Orders) -> FloatArray:
        if not group.has_inner:
            return in_order(group, orders)
        total = np.zeros((group.n, group.n))
        for axis, members in group.members.items():
            if axis in found:
                theirs = orders[axis][members]
                total += [[most_alike(found[axis][np.ix_(a, b)]) for b in theirs] for a in members]
        return total

    return likeness


def correlations(ours: Observer, theirs: Observer, names: Sequence[str]) -> dict[str, FloatArray]:
    """Correlate what goes into the same layers of two models.

    Args:
        ours: One model and the prompts.
        theirs: The other, on the same prompts.
        names: Matrices of linear layers.

    Returns:
        (inputs, inputs) by name; 0 for an input that never changes. As many are gathered in a pass
        over the prompts as fit into 2 GiB.
    """
    found: dict[str, FloatArray] = {}
    for block in _blocks(names, ours):
        sums = {name: _Sums(*(m.layers[name] for m in (ours, theirs))) for name in block}
        for _ in zip(ours.read_forward(), theirs.read_forward(), strict=True):
            for one in sums.values():
                one.add()
        found |= {name: one.correlations() for name, one in sums.items()}
    return found


def _blocks(names: Sequence[str], observer: Observer) -> Iterator[list[str]]:
    block: list[str] = []
    held = 0
    for name in names:
        size = 4 * observer.layers[name].in_features ** 2
        if block and held + size > _BLOCK_BYTES:
            yield block
            block, held = [], 0
        block.append(name)
        held += size
    yield block


class _Sums:
    """Sums over the tokens that two layers have read: of inputs, their squares and products."""

    def __init__(self, *layers: nn.Linear) -> None:
        self._last: list[torch.Tensor] = [torch.empty(0)] * 2
        self._hooks = [
            layer.register_forward_pre_hook(self._keep(i)) for i, layer in enumerate(layers)
        ]
        self._n, sizes = 0, [layer.in_features for layer in layers]
        device = layers[0].weight.device
        self._first = [torch.zeros(size, dtype=torch.float64, device=device) for size in sizes]
        self._second = [torch.zeros(size, dtype=torch.float64, device=device) for size in sizes]
        self._products = torch.zeros(*sizes, device=device)

    def _keep(self, i: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self._last[i] = inputs[0].flatten(0, -2).float()

        return keep

    def add(self) -> None:
        """Add what both layers read last."""
        self._n += len(self._last[0])
        self._products += self._last[0].T @ self._last[1]
        for i, last in enumerate(self._last):
            self._first[i] += last.double().sum(0)
            self._second[i] += last.double().square().sum(0)

    def correlations(self) -> FloatArray:
        """Stop reading, and relate the sums."""
        for hook in self._hooks:
            hook.remove()
        means = [first / self._n for first in self._first]
        spreads = [
            (second / self._n - mean.square()).clamp(min=0).sqrt()
            for second, mean in zip(self._second, means, strict=True)
        ]
        shared = self._products.double() / self._n - torch.outer(*means)
        found = shared / torch.outer(*spreads)
        return found.nan_to_num(0.0, 0.0, 0.0).cpu().numpy()
