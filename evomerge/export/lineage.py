"""What a merge descends from: each model that it is made of, its content and its licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import metadata_load

from evomerge.fingerprint import fingerprint
from evomerge.models.files import file_in, read_json, weight_files
from evomerge.models.reference import (
    AdapterRef,
    ModelRef,
    mentioned_models,
    resolve_adapter,
    resolve_model,
)
from evomerge.origins import BASE, is_single_model, kind_and_name
from evomerge.recipe.recipe import Recipe

__all__ = ["Ancestor", "ancestors", "common_license", "license_note", "parents"]


@dataclass(frozen=True)
class Ancestor:
    """One model or adapter.

    Attributes:
        reference: ``zoo:NAME``, folder or Hub id.
        content: Names the bytes of its tensors: 32 hexadecimal digits.
        license: As its own model card declares it; ``None`` if it does not.
    """

    reference: str
    content: str
    license: str | None


def parents(recipe: Recipe, origin: str) -> tuple[ModelRef, ...]:
    """List what a model is made of: all that was merged, or the one model that it is."""
    base = () if recipe.base is None else (recipe.base,)
    if origin == BASE:
        return base
    if is_single_model(origin):
        return (recipe.experts[kind_and_name(origin)[1]],)
    return (*base, *recipe.experts.values())


def ancestors(references: Sequence[ModelRef]) -> tuple[Ancestor, ...]:
    """Look into the models that a merge was made of, each once.

    Raises:
        CheckpointError: One is not where it was.
    """
    found: dict[str, Path] = {}
    for reference in references:
        for model in mentioned_models(reference):
            is_adapter = isinstance(reference, AdapterRef) and model == reference.adapter
            found[model] = (resolve_adapter if is_adapter else resolve_model)(model)
    return tuple(
        Ancestor(model, fingerprint(*_tensor_files(folder)), _license(folder))
        for model, folder in found.items()
    )


def common_license(found: Sequence[Ancestor]) -> str | None:
    """Name the licence that all declare; ``None`` if they differ or one declares none."""
    licenses = {ancestor.license for ancestor in found}
    return licenses.pop() if len(licenses) == 1 else None


def license_note(found: Sequence[Ancestor]) -> str | None:
    """Say that the licences of the models have to be read together; ``None`` if they are one."""
    known = sorted({ancestor.license for ancestor in found if ancestor.license})
    silent = [ancestor for ancestor in found if ancestor.license is None]
    if len(known) > 1:
        return f"Its models are under different licences ({', '.join(known)}): all of them apply."
    if known and silent:
        return (
            f"{len(silent)} of its {len(found)} models declare no licence; the others {known[0]}."
        )
    return None


def _tensor_files(folder: Path) -> list[Path]:
    config = folder / "config.json"
    if config.is_file():
        return list(weight_files(folder, read_json(config)))
    return [folder / "adapter_model.safetensors"]


def _license(folder: Path) -> str | None:
    """Read the licence in the header of a model card."""
    card = file_in(folder, "README.md")
    try:
        header = metadata_load(card) if card.is_file() else None
    except (ValueError, yaml.YAMLError):  # a card for people only
        return None
    found = (header or {}).get("license")
    if found == "other":
        found = (header or {}).get("license_name", found)
    return found if isinstance(found, str) else None
