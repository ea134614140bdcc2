"""A mixture of experts, of several models or of fewer experts of one, with its model card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from evomerge.export.made import write_card
from evomerge.merging.folder import SHARD_BYTES
from evomerge.mixtures.fewer import FewerExperts, FewerWritten, write_fewer
from evomerge.mixtures.file import MixtureFile, dump_mixture, public_mixture
from evomerge.mixtures.folder import WrittenMixture, write_mixture
from evomerge.models.reference import absolute_reference, public_reference
from evomerge.schema import write_yaml

__all__ = ["export_fewer", "export_mixture"]

_Progress = Callable[[int, int], None] | None


def export_mixture(
    file: MixtureFile,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: _Progress = None,
) -> WrittenMixture:
    """Write a mixture with a card that says what it is made of; see ``write_mixture``."""
    written = write_mixture(file, out, shard_bytes=shard_bytes, progress=progress)
    shown = public_mixture(file)
    write_card(
        out,
        "mixture",
        [file.base_model, *(expert.source_model for expert in file.everyone)],
        tags=["merge", "moe"],
        recipe=dump_mixture(shown, ""),
        details={"file": shown, "written": written, "digest": file.digest},
    )
    return written


def export_fewer(wanted: FewerExperts, out: Path, *, progress: _Progress = None) -> FewerWritten:
    """Write a mixture with fewer experts, and its card; see ``write_fewer``."""
    written = write_fewer(wanted, out, progress=progress)
    model = absolute_reference(wanted.model, Path.cwd())
    shown = replace(wanted, model=public_reference(model), prompts=Path(wanted.prompts).name)
    details = {"wanted": shown, "written": written}
    text = write_yaml(asdict(shown))
    write_card(out, "fewer", [model], tags=["merge", "moe"], recipe=text, details=details)
    return written
