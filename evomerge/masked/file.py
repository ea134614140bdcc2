"""The list of masks beside a merge, and the bits that they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import ConfigDict

from evomerge.masked.kinds import MaskKind
from evomerge.masked.listed import load_list
from evomerge.models.reference import absolute_reference, relative_reference
from evomerge.schema import write_yaml

__all__ = [
    "MASKS",
    "ExpertMask",
    "MaskFile",
    "load_masks",
    "masks_text",
    "packed",
    "unpacked",
]

MASKS = "masks.yaml"


@dataclass(frozen=True)
class ExpertMask:
    """The mask of one expert.

    Attributes:
        file: Safetensors file beside the merge: by tensor, a bit per element, first element first.
        density: Share of elements that it keeps.
        rescale: What the merge's changes are multiplied by where it keeps them.
    """

    file: str
    density: float
    rescale: float

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class MaskFile:
    """All masks of a merge.

    Attributes:
        by: Their kind.
        base: Model reference of the base, which is needed, too.
        base_digest: What the base holds.
        merge_digest: What the merge holds.
        experts: Masks by expert.
    """

    by: MaskKind
    base: str
    base_digest: str
    merge_digest: str
    experts: Mapping[str, ExpertMask]

    __pydantic_config__ = ConfigDict(extra="forbid")


def load_masks(folder: Path) -> MaskFile:
    """Read the masks of a merge.

    Raises:
        ConfigError: There are none, or the file is damaged.
    """
    found = load_list(MaskFile, folder / MASKS, what="masks", command="masks")
    return replace(found, base=absolute_reference(found.base, folder))


def masks_text(masks: MaskFile, folder: Path) -> str:
    """Write it as YAML; folders of models are named from ``folder``."""
    moved = replace(masks, base=relative_reference(masks.base, folder))
    return write_yaml(asdict(moved), "Masks of the merge in this folder: evomerge restore")


def packed(mask: torch.Tensor) -> torch.Tensor:
    """Write booleans as bits: uint8, an eighth as many, rounded up."""
    return torch.from_numpy(np.packbits(mask.numpy().reshape(-1)))


def unpacked(bits: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Undo ``packed``."""
    found = np.unpackbits(bits.numpy(), count=math.prod(shape)).astype(np.bool_)
    return torch.from_numpy(found).reshape(shape)
