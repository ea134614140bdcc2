"""Aligned experts: full models with their neurons and heads put where the base has theirs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from evomerge.alignment.placing import placed
from evomerge.cache import cache_folder, hold, say_unusable
from evomerge.errors import CheckpointError
from evomerge.fingerprint import digest_of, fingerprint
from evomerge.merging.shared import mapped, only_one
from evomerge.merging.unit_maps import UnitMaps
from evomerge.models.checkpoint import Checkpoint, StoredTensor
from evomerge.models.expert import TensorSource, open_expert
from evomerge.models.opening import OpenModel
from evomerge.models.reference import AlignedRef, ModelRef
from evomerge.models.units import ModelUnits, units_of

__all__ = ["ALIGNED", "Aligned", "open_aligned"]

ALIGNED = "aligned"
"""Room of the user's cache where it is kept what goes where."""
_ARITHMETIC = 1  # raise when the same models are aligned in another way


def open_aligned(
    reference: ModelRef, base: Checkpoint | None, open_full: OpenModel
) -> TensorSource:
    """Open an expert of any kind, aligned ones too; see ``open_expert``."""
    if not isinstance(reference, AlignedRef):
        return open_expert(reference, base, open_full)
    if base is None:
        raise CheckpointError(
            f"expected a base that {reference.model} can be aligned with, the recipe has none"
        )
    return Aligned(reference, base, open_full(reference.model))


class Aligned:
    """An expert whose units are where the base has their like.

    What goes where is found when a tensor is first asked for, once per machine, and kept by what
    the files hold: 8 bytes per position, for ``transport`` 4 per pair of neurons. Tensors whose
    positions stay are those of the model, mapped; others are put together in float32 at each call.

    Args:
        reference: What is aligned, and how.
        base: What it is aligned with.
        model: The model of the reference, its tensors named like the base's.

    Raises:
        CheckpointError: The units of such models are not known, or not those of the base, or
            cannot be watched while the models run.
    """

    def __init__(self, reference: AlignedRef, base: Checkpoint, model: Checkpoint) -> None:
        self.layout = model
        self._reference, self._base = reference, base
        self._units = units_of(base)
        _check_alike(self._units, units_of(model), reference)
        if reference.prompts is not None:
            _check_readable(self._units, base, Path(reference.prompts))
        self._unit_maps = UnitMaps(reference, base, model, self._units)

    @property
    def files(self) -> tuple[Path, ...]:
        """See ``TensorSource``."""
        prompts = self._reference.prompts
        read = () if prompts is None else (Path(prompts),)
        return (*self._base.files, *self.layout.files, *read)

    @property
    def computation(self) -> str:
        """See ``TensorSource``."""
        return f"aligned {_ARITHMETIC} {self._reference.align}"

    def tensor(self, name: str) -> torch.Tensor:
        """See ``TensorSource``."""
        stored, axes = self.layout.tensor(name), self._moving(name)
        if not any(axes):
            return stored
        maps = [None if axis is None else self._maps.get_tensor(axis) for axis in axes]
        return placed(stored.float(), maps)

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """See ``TensorSource``."""
        own = self.layout.parts(name)
        return (*own, *self._base.parts(name)) if any(self._moving(name)) else own

    def _moving(self, name: str) -> Sequence[str | None]:
        axes, forms = self._units.axes.get(name, ()), self._unit_maps.forms
        return [axis if axis in forms else None for axis in axes]

    @cached_property
    def _maps(self) -> Any:
        """The open file of what goes where, by axis."""
        name = f"{digest_of(self.computation, fingerprint(*self.files))}.safetensors"
        if (folder := cache_folder(ALIGNED)) is not None:
            try:
                return self._kept(folder / name)
            except (OSError, CheckpointError) as err:
                say_unusable(folder, err)
        self._own = TemporaryDirectory(prefix="evomerge-")
        return self._kept(Path(self._own.name, name))

    def _kept(self, file: Path) -> Any:
        found: dict[str, torch.Tensor] = {}

        def map_of(axis: str) -> torch.Tensor:
            if not found:
                found.update(self._unit_maps.found())
            return found[axis]

        with only_one(file) as note:
            opened = mapped(file, note, self._unit_maps.forms, map_of)
            self._held = hold(file)
            return opened


def _check_alike(ours: ModelUnits, theirs: ModelUnits, reference: AlignedRef) -> None:
    shapes = [
        [{axis: found.shape for axis, found in g.members.items()} for g in units.groups]
        for units in (ours, theirs)
    ]
    if ours.sizes != theirs.sizes or shapes[0] != shapes[1]:
        raise CheckpointError(
            f"expected {reference.model} to have the layers, neurons and heads of the base it is "
            "aligned with, got others; models must share their architecture"
        )


def _check_readable(units: ModelUnits, base: Checkpoint, prompts: Path) -> None:
    from evomerge.alignment.activations import reading_matrices
    from evomerge.models.linear import linear_layers
    from evomerge.models.structure import empty_model

    if not prompts.is_file():
        raise CheckpointError(f"expected a file of prompts at {prompts}, found none")
    model = empty_model(base.config)
    assert model is not None, "transformers has the families whose units are known"
    missing = set(reading_matrices(units).values()) - linear_layers(model, units.axes).keys()
    if missing:
        raise CheckpointError(
            "expected matrices of linear layers, to watch their inputs for align: activations, got "
            f"{min(missing)} in {base.folder}, which is none; use align: weights"
        )
