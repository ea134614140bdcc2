"""An expert's model made of base, merge and mask, as a folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evomerge.errors import CheckpointError, Fault
from evomerge.fingerprint import digest_of
from evomerge.masked.file import MASKS, ExpertMask, load_masks, unpacked
from evomerge.masked.listed import require_listed
from evomerge.merging.folder import SHARD_BYTES
from evomerge.merging.output import WRITTEN, ModelFolder, claim_folder, write_model
from evomerge.models.checkpoint import Checkpoint, open_safetensors
from evomerge.models.expert import content_digest
from evomerge.models.files import file_in
from evomerge.models.opening import open_model
from evomerge.models.reference import relative_reference
from evomerge.models.spelling import OneSpelling
from evomerge.models.tiles import row_blocks
from evomerge.models.writer import TensorForm
from evomerge.schema import write_yaml

__all__ = ["write_restored"]


def write_restored(
    folder: Path,
    expert: str,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the model of one expert: base + rescale · mask · (merge − base).

    In the dtype of the merge; where a mask keeps an element and nothing is rescaled, the merge's
    very bits. Memory: one tensor of each.

    Args:
        folder: A merge with masks.
        expert: Whose mask is taken.
        out: Folder to write; created if needed. An earlier merge in it is replaced.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (tensors done, tensors in all).

    Raises:
        ConfigError: There are no masks, or none of the expert.
        CheckpointError: Base or merge are others than when the masks were made, or the folder
            cannot be written.
        NonFiniteError: What is rescaled leaves the range of the dtype.
    """
    masks = load_masks(folder)
    require_listed(expert, masks.experts, folder, what="a mask")
    base, merge = OneSpelling(open_model)(masks.base), Checkpoint(folder)
    pairs = {"base": (base, masks.base_digest), "merge": (merge, masks.merge_digest)}
    for name, (model, digest) in pairs.items():
        if content_digest(model) != digest:
            text = f"expected the {name} that the masks were made of, got another in {model.folder}"
            raise CheckpointError(Fault((), text, "make the masks again: evomerge masks"))
    mask = masks.experts[expert]
    file = file_in(folder, mask.file)
    tensors = _Restored(base, merge, mask, open_safetensors(file))
    files = dict.fromkeys([*base.files, *merge.files, file, folder / MASKS])
    claim_folder(out, digest_of("restored", masks.merge_digest, expert), files, shard_bytes)
    content = {"masks": relative_reference(str(folder.resolve()), out), "expert": expert}
    restored = ModelFolder(
        tensors.forms,
        tensors.tensor,
        folder,
        merge.config,
        write_yaml(content, f"{WRITTEN}\nevomerge restore MASKS EXPERT --out DIR"),
        "merge with dtype bfloat16 or float32",
    )
    write_model(out, restored, shard_bytes, progress)


@dataclass(frozen=True)
class _Restored:
    base: Checkpoint
    merge: Checkpoint
    mask: ExpertMask
    bits: Any

    @property
    def forms(self) -> dict[str, TensorForm]:
        merge = self.merge
        return {name: TensorForm(merge.dtype(name), merge.shape(name)) for name in merge.names}

    def tensor(self, name: str) -> torch.Tensor:
        merge = self.merge.tensor(name)
        if name not in self.bits.keys():  # noqa: SIM118
            return merge
        base, kept = (
            self.base.tensor(name),
            unpacked(self.bits.get_tensor(name), tuple(merge.shape)),
        )
        out = torch.empty_like(merge)
        for rows in row_blocks(merge.shape):
            out[rows] = torch.where(kept[rows], self._changed(base[rows], merge[rows]), base[rows])
        return out

    def _changed(self, base: torch.Tensor, merge: torch.Tensor) -> torch.Tensor:
        if self.mask.rescale == 1:
            return merge
        changed = base.float() + self.mask.rescale * (merge.float() - base.float())
        return changed.to(merge.dtype)
