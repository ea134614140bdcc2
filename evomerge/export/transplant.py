"""A model with the vocabulary of another one, with its model card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from evomerge.export.made import write_card
from evomerge.models.reference import absolute_reference, public_reference
from evomerge.schema import write_yaml
from evomerge.transplants.folder import Transplant, Transplanted, write_transplant

__all__ = ["export_transplant"]

_Progress = Callable[[int, int], None]


def export_transplant(
    wanted: Transplant,
    out: Path,
    *,
    device: str = "cpu",
    approximating: _Progress = lambda done, total: None,
    writing: _Progress = lambda done, total: None,
) -> Transplanted:
    """Write a transplant with a card that says what it is made of; see ``write_transplant``."""
    written = write_transplant(
        wanted, out, device=device, approximating=approximating, writing=writing
    )
    donor, model = (absolute_reference(m, Path.cwd()) for m in (wanted.donor, wanted.model))
    shown = replace(wanted, donor=public_reference(donor), model=public_reference(model))
    details = {"wanted": shown, "written": written}
    text = write_yaml(asdict(shown))
    write_card(out, "transplant", [model, donor], tags=["merge"], recipe=text, details=details)
    return written
