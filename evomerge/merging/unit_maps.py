"""Where an expert's units go, found by each kind of aligner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from evomerge.alignment.matching import Likeness, Orders, matched
from evomerge.alignment.transport import transport_plan
from evomerge.alignment.weights import squared_lengths, weight_likeness
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.reference import AlignedRef
from evomerge.models.units import STREAM, ModelUnits, UnitGroup
from evomerge.models.writer import TensorForm

if TYPE_CHECKING:
    from evomerge.observation.observer import Observer

__all__ = ["UnitMaps"]


@dataclass(frozen=True, eq=False)
class UnitMaps:
    """What of an expert goes to each position of an axis.

    Attributes:
        reference: Says how it is found.
        base: Where everything has to be.
        model: What is put there.
        units: Of both.
    """

    reference: AlignedRef
    base: Checkpoint
    model: Checkpoint
    units: ModelUnits

    @cached_property
    def forms(self) -> Mapping[str, TensorForm]:
        """What a map takes, of every axis that moves; see ``placed``."""
        spread = {axis for group in self._spread for axis in group.members}
        return {axis: self._form(axis, is_spread=axis in spread) for axis in self._moving}

    def found(self) -> dict[str, torch.Tensor]:
        """Find the maps of all axes."""
        (alike, at_first), spread = self._likeness(), self._spread
        moved = [group for group in self._groups if not any(group is one for one in spread)]
        orders = matched(self.units, moved, alike, at_first)
        maps = {axis: torch.from_numpy(order) for axis, order in orders.items()}
        for group in spread:
            maps |= self._shares(group, alike, orders)
        return maps

    @property
    def _groups(self) -> list[UnitGroup]:
        with_stream = self.reference.align == "weights_and_stream"
        return [g for g in self.units.groups if with_stream or STREAM not in g.members]

    @property
    def _spread(self) -> list[UnitGroup]:
        """Groups whose units are mixed instead of moved: neurons, which no other group touches."""
        if self.reference.align != "transport":
            return []
        return [g for g in self._groups if any(axis.endswith(".hidden") for axis in g.members)]

    @property
    def _moving(self) -> list[str]:
        return sorted({axis for group in self._groups for axis in group.members})

    def _form(self, axis: str, *, is_spread: bool) -> TensorForm:
        n = self.units.sizes[axis]
        return TensorForm(torch.float32, (n, n)) if is_spread else TensorForm(torch.int64, (n,))

    def _likeness(self) -> tuple[Likeness, Likeness]:
        """Choose what is compared, and what at first."""
        if self.reference.prompts is None:
            read = self.base.tensor, self.model.tensor
            alike = weight_likeness(self.units, *read, self._moving)
            return alike, alike
        from evomerge.alignment.activations import (
            activation_likeness,
            correlations,
            reading_matrices,
            unordered_likeness,
        )

        matrices = reading_matrices(self.units)
        ours, theirs = (self._observer(model) for model in (self.base, self.model))
        by_name = correlations(ours, theirs, list(matrices.values()))
        found = {axis: by_name[name] for axis, name in matrices.items()}
        return activation_likeness(found), unordered_likeness(found)

    def _shares(self, group: UnitGroup, alike: Likeness, orders: Orders) -> dict[str, torch.Tensor]:
        still = {axis: np.arange(self.units.sizes[axis]) for axis in group.members}
        ours = squared_lengths(self.units, group, self.base.tensor)
        theirs = squared_lengths(self.units, group, self.model.tensor)
        cost = ours[:, None] + theirs - 2 * alike(group, {**orders, **still})
        plan = torch.from_numpy(transport_plan(cost.clip(min=0))).float()
        shares = {axis: torch.zeros(self.forms[axis].shape) for axis in group.members}
        for axis, members in group.members.items():
            for own in torch.from_numpy(members).T:
                shares[axis][own[:, None], own] = plan
        return shares

    def _observer(self, model: Checkpoint) -> Observer:
        from evomerge.merging.watched import N_PROMPTS, watched  # which needs this room's sources
        from evomerge.observation.examples import read_examples

        examples = read_examples(Path(str(self.reference.prompts)), N_PROMPTS)
        return watched(model, tuple(self.units.axes), examples, like=self.base)
