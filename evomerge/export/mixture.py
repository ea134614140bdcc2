"""A mixture of experts with its model card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from huggingface_hub import ModelCardData

from evomerge import __version__
from evomerge.export.card import card_templates, hub_ids
from evomerge.export.lineage import Ancestor, ancestors, common_license, license_note
from evomerge.merging.folder import SHARD_BYTES
from evomerge.mixtures.file import MixtureFile, dump_mixture, public_mixture
from evomerge.mixtures.folder import WrittenMixture, write_mixture
from evomerge.models.reference import public_reference

__all__ = ["export_mixture", "mixture_card"]


def export_mixture(
    file: MixtureFile,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenMixture:
    """Write a mixture with a card that says what it is made of; see ``write_mixture``."""
    written = write_mixture(file, out, shard_bytes=shard_bytes, progress=progress)
    descent = ancestors([file.base_model, *(expert.source_model for expert in file.everyone)])
    card = mixture_card(out.name, file, written, descent)
    (out / "README.md").write_text(card, encoding="utf-8")
    return written


def mixture_card(
    name: str, file: MixtureFile, written: WrittenMixture, descent: tuple[Ancestor, ...]
) -> str:
    """Write the model card of a mixture.

    Args:
        name: Title.
        file: What it is.
        written: What came out.
        descent: The models that it is made of.

    Returns:
        Markdown with the YAML header that the Hub reads.
    """
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["merge", "moe", "evomerge"],
        license=common_license(descent),
        base_model=hub_ids(a.reference for a in descent) or None,
        base_model_relation="merge",
    )
    shown = public_mixture(file)
    return (
        card_templates()
        .get_template("mixture.md.j2")
        .render(
            header=header.to_yaml(),
            name=name,
            file=shown,
            written=written,
            descent=[replace(a, reference=public_reference(a.reference)) for a in descent],
            license_note=license_note(descent),
            digest=file.digest,
            file_yaml=dump_mixture(shown, ""),
            version=__version__,
        )
    )
