"""The card of a model that is made of others without a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import ModelCardData

from evomerge import __version__
from evomerge.export.card import card_templates, hub_ids
from evomerge.export.lineage import ancestors, common_license, license_note
from evomerge.models.files import read_json
from evomerge.models.parts import parts_of
from evomerge.models.reference import ModelRef, public_reference

__all__ = ["write_card"]


def write_card(
    out: Path,
    template: str,
    references: Sequence[ModelRef],
    *,
    tags: Sequence[str],
    recipe: str,
    details: Mapping[str, object],
) -> None:
    """Write the card of a model: what it is, what it is made of, under which licences.

    Args:
        out: Its folder, complete.
        template: One that extends ``made``.
        references: All models that it is made of; folders by their whole paths.
        tags: For the Hub, beside ``evomerge``.
        recipe: YAML without the places of local models.
        details: What the template names.

    Raises:
        CheckpointError: A model is not where it was.
    """
    descent = ancestors(references)
    has_parts = parts_of(read_json(out / "config.json")) is not None
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text" if has_parts else "text-generation",
        tags=[*tags, "evomerge"],
        license=common_license(descent),
        base_model=hub_ids(a.reference for a in descent) or None,
        base_model_relation="merge",
    )
    card = (
        card_templates()
        .get_template(f"{template}.md.j2")
        .render(
            header=header.to_yaml(),
            name=out.name,
            descent=[replace(a, reference=public_reference(a.reference)) for a in descent],
            license_note=license_note(descent),
            parts=has_parts,
            recipe=recipe,
            version=__version__,
            **details,
        )
    )
    (out / "README.md").write_text(card, encoding="utf-8")
