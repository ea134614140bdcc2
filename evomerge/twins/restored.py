"""A model made of merge and differences, as a folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from evomerge.fingerprint import digest_of
from evomerge.merging.folder import SHARD_BYTES
from evomerge.merging.output import WRITTEN, ModelFolder, claim_folder, write_model
from evomerge.models.reference import relative_reference
from evomerge.models.writer import TensorForm
from evomerge.schema import write_yaml
from evomerge.twins.differences import with_differences
from evomerge.twins.file import TWINS, load_twins

__all__ = ["write_weighted"]


def write_weighted(
    folder: Path,
    weights: Mapping[str, float],
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the model merge + Σ weight · difference, in the dtype of the merge.

    Memory: one tensor of merge and differences.

    Args:
        folder: A merge with differences.
        weights: By expert; 1 for one alone is that expert.
        out: Folder to write; created if needed. An earlier merge in it is replaced.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (tensors done, tensors in all).

    Raises:
        ConfigError: There are no differences, or none of an expert.
        CheckpointError: The merge is another than when the differences were made, or the folder
            cannot be written.
        NonFiniteError: The sum leaves the range of the dtype.
    """
    twins = load_twins(folder)
    twins.require(weights)
    merge, own = twins.merge, dict(weights)
    files = [twins.path(twins.file.experts[name]) for name in own]
    claim_folder(
        out,
        digest_of("weighted", twins.file.merge_digest, own),
        dict.fromkeys([*merge.files, *files, folder / TWINS]),
        shard_bytes,
    )
    content = {"twins": relative_reference(str(folder.resolve()), out), "weights": own}
    restored = ModelFolder(
        {name: TensorForm(merge.dtype(name), merge.shape(name)) for name in merge.names},
        lambda name: with_differences(name, merge.tensor(name), twins.differences, own),
        folder,
        merge.config,
        write_yaml(content, f"{WRITTEN}\nevomerge restore TWINS EXPERT --out DIR"),
        "merge with dtype bfloat16 or float32",
    )
    write_model(out, restored, shard_bytes, progress)
